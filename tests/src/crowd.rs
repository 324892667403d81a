//! Many of something at the same time, but not too many.

use anyhow::Result;
use tokio::task::JoinSet;

/// How many are under way at the same time.
const AT_ONCE: usize = 50;

/// Does something for each, some at a time; the results are in no order.
///
/// # Errors
/// The first one that happens; the others are given up.
pub async fn each<T, R, F>(items: Vec<T>, act: impl Fn(T) -> F) -> Result<Vec<R>>
where
    R: Send + 'static,
    F: Future<Output = Result<R>> + Send + 'static,
{
    let (mut tasks, mut done) = (JoinSet::new(), Vec::with_capacity(items.len()));
    for item in items {
        if tasks.len() >= AT_ONCE
            && let Some(ended) = tasks.join_next().await
        {
            done.push(ended??);
        }
        tasks.spawn(act(item));
    }
    while let Some(ended) = tasks.join_next().await {
        done.push(ended??);
    }
    Ok(done)
}
