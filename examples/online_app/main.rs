//! An application that moves from etcd's v2 API to its v3 API while it runs. `fixtures/online-app/NOTES.md` says how to run it.
//!
//! `client.rs` is the client; this file reads one command a line, and prints its result as one line of JSON.

#![allow(clippy::indexing_slicing, reason = "of a JSON value, which is null then")]

mod client;

use std::env;
use std::error::Error;
use std::io::{BufRead, stdin};
use std::time::Duration;

use client::{App, V2};
use etcd_client::{Client, ConnectOptions};
use serde_json::{Value, json};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(3);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = env::args().skip(1).map(|urls| urls.split(',').map(String::from).collect::<Vec<_>>());
    let (Some(v3), Some(endpoints)) = (args.next(), args.next()) else {
        return Err("usage: online_app V3_ENDPOINTS V2_ENDPOINTS (each URL,URL,...)".into());
    };
    let options = ConnectOptions::new().with_connect_timeout(TIMEOUT / 3);
    let v3 = Client::connect(v3, Some(options)).await?;
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT / 3));
    tokio::spawn(watch_switch(v3.clone()));
    let mut app = App { v3, v2: V2 { agent: config.build().into(), endpoints } };
    let (sender, mut lines) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        stdin().lock().lines().map_while(|line| line.ok()).try_for_each(|line| sender.blocking_send(line))
    });
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        let result = timeout(TIMEOUT, run(&mut app, &words)).await.unwrap_or_else(|_| Err("no answer in time".into()));
        println!("{}", result.unwrap_or_else(|error| json!({ "error": error.to_string() })));
    }
    Ok(())
}

/// Runs `get KEY`, `put KEY VALUE [TTL]`, `delete KEY`, `cas KEY OLD NEW` (OLD is `-` for a missing key) or `list DIRECTORY`.
async fn run(app: &mut App, words: &[&str]) -> Result<Value> {
    Ok(match words {
        ["get", key] => json!({ "value": app.get(key).await? }),
        ["list", dir] => json!({ "values": app.list(dir).await? }),
        ["put", key, value, ttl @ ..] => {
            app.put(key, value, ttl.first().map_or(Ok(0), |ttl| ttl.parse())?).await?;
            json!({ "ok": true })
        }
        ["delete", key] => {
            app.delete(key).await?;
            json!({ "ok": true })
        }
        ["cas", key, old, new] => match app.compare_and_swap(key, (*old != "-").then_some(*old), new).await? {
            Ok(()) => json!({ "swapped": true, "value": null }),
            Err(found) => json!({ "swapped": false, "value": found }),
        },
        _ => return Err(format!("not a command: {words:?}").into()),
    })
}

/// Says what the switch key is. This is a hint: every operation reads the switch key itself.
async fn watch_switch(mut v3: Client) -> Result<()> {
    let mut watch = v3.watch("etcdlift/switch", None).await?;
    while let Some(answer) = watch.message().await? {
        for pair in answer.events().iter().filter_map(|event| event.kv()) {
            eprintln!("the switch key is {}", pair.value_str()?);
        }
    }
    Ok(())
}
