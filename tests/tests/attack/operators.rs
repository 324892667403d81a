//! Who speaks as an operator without being one.

use reqwest::{Client, StatusCode};

use crate::target::{Limits, Target, is_long};

#[tokio::test]
async fn a_foreign_page_sends_no_command_with_an_operators_password() {
    let target = Target::start("foreign page").await;
    let base = format!("http://{}", target.site.http);
    let http = Client::new();
    let url = format!("{base}/api/devices/attacker/commands/stop?api-version=2022-07-31");
    for (content_type, origin) in
        [("text/plain", "http://evil.example"), ("application/json", "http://evil.example")]
    {
        let request = http
            .post(&url)
            .basic_auth("operator", Some(target.site.token()))
            .header("Content-Type", content_type)
            .header("Origin", origin)
            .header("Sec-Fetch-Site", "cross-site")
            .body("{}");
        let status = request.send().await.unwrap().status();
        let is_refused =
            [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::UNSUPPORTED_MEDIA_TYPE];
        assert!(is_refused.contains(&status), "{content_type} from {origin}: {status}");
    }
    target.held(Limits::default()).await.unwrap();
}

#[tokio::test]
async fn guessing_tokens_neither_fills_the_log_nor_keeps_an_operator_out() {
    let target = Target::start("guessed tokens").await;
    let http = Client::new();
    let url = format!("http://{}/api/devices?api-version=2022-07-31", target.site.http);
    let count = if is_long() { 2_000 } else { 200 };
    let guesses: Vec<_> = (0..10)
        .map(|guesser| {
            let (http, url) = (http.clone(), url.clone());
            tokio::spawn(async move {
                for number in 0..count / 10 {
                    let token = format!("SharedAccessSignature sr=x&sig=guess{guesser}-{number}&skn=x&se=1");
                    let request = http
                        .get(&url)
                        .header("Authorization", token)
                        .timeout(std::time::Duration::from_secs(2));
                    if let Ok(answer) = request.send().await {
                        assert!(!answer.status().is_success());
                    }
                }
            })
        })
        .collect();
    target.site.rest().unwrap().get("/api/devices").await.unwrap();
    for guess in guesses {
        guess.await.unwrap();
    }
    target.site.rest().unwrap().get("/api/devices").await.unwrap();
    target.held(Limits::default()).await.unwrap();
}
