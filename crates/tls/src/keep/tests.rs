use std::os::unix::fs::PermissionsExt as _;

use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::issue::{issue_ca, issue_server};
use crate::pem::certificates;
use crate::watch::QUIET;

const PATIENCE: Duration = Duration::from_secs(60);

fn options(dir: &Path, authority: Option<Authority>) -> KeepOptions {
    let location =
        CertificateLocation::Files { cert: dir.join("server.pem"), key: dir.join("server-key.pem") };
    KeepOptions::new(location, authority, vec!["edge1".to_owned(), "127.0.0.1".to_owned()])
}

fn put(dir: &Path, issued: &Issued) {
    fs::write(dir.join("server-key.pem"), &issued.key_pem).unwrap();
    fs::write(dir.join("server.pem"), &issued.chain_pem).unwrap();
}

fn served_pem(dir: &Path) -> String {
    fs::read_to_string(dir.join("server.pem")).unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let is_late = tokio::time::Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !is_so() {
        ticks.tick().await;
        assert!(tokio::time::Instant::now() < is_late, "not so: {what}");
    }
}

fn not_after_secs(certified: &CertifiedKey) -> u64 {
    let (_, certificate) = X509Certificate::from_der(&certified.cert[0]).unwrap();
    u64::try_from(certificate.validity().not_after.timestamp()).unwrap()
}

#[test]
fn a_missing_an_expired_or_a_foreign_key_and_a_new_host_name_are_mended_at_the_start_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let ca = issue_ca("site").unwrap();
    let first = Keeper::open(options(dir.path(), Some(ca.clone()))).unwrap();
    let made = served_pem(dir.path());
    assert_eq!(first.known.names, ["edge1", "127.0.0.1"]);
    let mode = fs::metadata(dir.path().join("server-key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    Keeper::open(options(dir.path(), Some(ca.clone()))).unwrap();
    assert_eq!(served_pem(dir.path()), made, "it is kept");

    let mut renamed = options(dir.path(), Some(ca.clone()));
    renamed.names[0] = "edge2".to_owned();
    assert_eq!(Keeper::open(renamed).unwrap().known.names[0], "edge2");

    // The power went between the two renames.
    let other = issue_server(&ca, &["edge1".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    fs::write(dir.path().join("server-key.pem"), &other.key_pem).unwrap();
    Keeper::open(options(dir.path(), Some(ca.clone()))).unwrap();

    let names = ["edge1".to_owned(), "127.0.0.1".to_owned()];
    let spec = CertificateSpec {
        common_name: "edge1",
        names: &names,
        uris: &[],
        purpose: Purpose::Server,
        lifetime: Duration::ZERO,
        validity_max_secs: None,
    };
    put(dir.path(), &issue(&ca, &spec).unwrap());
    let keeper = Keeper::open(options(dir.path(), Some(ca))).unwrap();
    assert!(keeper.known.not_after_secs > now_secs() + 300 * 24 * 3_600);
}

#[test]
fn a_certificate_of_another_authority_is_served_as_it_is_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = issue_server(&issue_ca("works").unwrap(), &["other".to_owned()]).unwrap();
    put(dir.path(), &theirs);
    let mut keeper = Keeper::open(options(dir.path(), Some(issue_ca("site").unwrap()))).unwrap();
    keeper.known.not_after_secs = 1;
    assert!(keeper.check(), "an operator is warned");
    assert_eq!(served_pem(dir.path()), theirs.chain_pem);
    fs::write(dir.path().join("server-key.pem"), "nothing").unwrap();
    let error = Keeper::open(options(dir.path(), None)).map(|_| ()).unwrap_err();
    assert!(chain(&error).to_string().contains("server-key.pem"), "{error}");
    fs::remove_file(dir.path().join("server.pem")).unwrap();
    let error = Keeper::open(options(dir.path(), None)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("server.pem"), "{error}");
}

#[tokio::test]
async fn files_that_change_are_served_at_once_and_files_that_cannot_be_used_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ca = issue_ca("works").unwrap();
    let [first, second] = [(); 2].map(|()| issue_server(&ca, &["edge1".to_owned()]).unwrap());
    put(dir.path(), &first);
    let keeper = Keeper::open(options(dir.path(), None)).unwrap();
    let served = keeper.served();
    let is_served =
        |issued: &Issued| served.current().cert == certificates(issued.chain_pem.as_bytes()).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(keeper.run(stop.clone()));
    // Half of it, then the whole.
    fs::write(dir.path().join("server.pem"), &second.chain_pem).unwrap();
    // That nothing happens has no event.
    tokio::time::sleep(QUIET * 3).await;
    assert!(is_served(&first));
    fs::write(dir.path().join("server-key.pem"), &second.key_pem).unwrap();
    until("the second is served", || is_served(&second)).await;
    fs::write(dir.path().join("server.pem"), "-----BEGIN CERTIF").unwrap();
    tokio::time::sleep(QUIET * 3).await;
    assert!(is_served(&second));
    put(dir.path(), &first);
    until("the first is served again", || is_served(&first)).await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_short_lived_certificate_is_made_anew_again_and_again_before_it_ends() {
    // A third of it is left when it is due: what a busy machine may take.
    const LIFETIME: u64 = 24;
    let ca = issue_ca("site").unwrap();
    let options = KeepOptions {
        lifetime: Duration::from_secs(LIFETIME),
        check_interval: Duration::from_millis(50),
        ..KeepOptions::new(CertificateLocation::Memory, Some(ca), vec!["edge1".to_owned()])
    };
    let mut keeper = Keeper::open(options).unwrap();
    // The first is due now: its wait would show what that of the second does.
    keeper.known.not_after_secs -= LIFETIME - 1;
    let served = keeper.served();
    let stop = CancellationToken::new();
    let running = tokio::spawn(keeper.run(stop.clone()));
    for _ in 0..2 {
        let before = served.current();
        until("a new one is served", || served.current().cert != before.cert).await;
        let made_at_secs = not_after_secs(&served.current()) - LIFETIME;
        assert!(made_at_secs <= not_after_secs(&before), "before the old one ended");
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}
