use std::sync::{Arc, Mutex};

use super::*;

const KEEP: Keep = Keep { messages: 100, commands: 100 };

#[tokio::test]
async fn a_work_that_fails_undoes_itself_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::store::open(dir.path(), KEEP).unwrap();
    let insert = |id: &'static str, fails: bool| {
        store.submit(move |c| -> Result<(), StoreError> {
            c.execute("INSERT INTO tokens (hash, name, role, expires_ms) VALUES (?1, ?1, '', 0)", [id])?;
            if fails { Err(StoreError::Busy) } else { Ok(()) }
        })
    };
    let (one, two, three) = (insert("one", false), insert("two", true), insert("three", false));
    one.await.unwrap();
    assert!(matches!(two.await, Err(StoreError::Busy)));
    three.await.unwrap();
    let kept = store.read(|c| {
        let count = c.query_row("SELECT count(*) FROM tokens", [], |row| row.get::<_, i64>(0))?;
        Ok::<_, StoreError>(count)
    });
    assert_eq!(kept.await.unwrap(), 2);
    store.close().await;
    let late = store.submit(|_| Ok::<_, StoreError>(())).await;
    assert!(matches!(late, Err(StoreError::NotCommitted)));
}

#[tokio::test]
async fn works_run_and_are_reported_in_the_order_in_which_they_were_submitted() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::store::open(dir.path(), KEEP).unwrap();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let all: Vec<_> = (0..2500)
        .map(|n| {
            let acknowledged = acknowledged.clone();
            store.submit_then(
                1,
                move |_| Ok::<_, StoreError>(n),
                move |n| acknowledged.lock().unwrap().push(*n),
            )
        })
        .collect();
    for (n, done) in all.into_iter().enumerate() {
        assert_eq!(done.await.unwrap(), n);
    }
    assert!(acknowledged.lock().unwrap().iter().copied().eq(0..2500));
}
