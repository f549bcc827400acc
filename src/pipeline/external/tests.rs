//! Programs in Python that do well, and that do not.

use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::json;
use serde_json::value::to_raw_value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{External, ExternalError, ExternalSettings};

/// Answers each item with its own words, its process id and how many came along; obeys what `prediction` says.
const ECHO: &str = r#"
import json, os, sys, time
for line in sys.stdin:
    items = json.loads(line)["items"]
    answers = []
    for item in items:
        word = item["say"]
        if word == "die": sys.exit("an ugly death")
        if word == "hang": time.sleep(600)
        if word == "nonsense": print("Loading model...", flush=True)
        if word == "long": word = "x" * (1 << 20)
        if word == "rave":
            sys.stderr.buffer.write(b"\xff\n" + b"x" * (1 << 20) + b"\n\xff\n" + b"line\n" * (1 << 15))
            sys.stderr.buffer.flush()
        if word == "complain": print("so\nmany\nwords", file=sys.stderr, flush=True)
        answers.append({"said": word, "pid": os.getpid(), "together": len(items)})
    print(json.dumps({"items": answers}), flush=True)
"#;

fn settings(source: &str) -> ExternalSettings {
    ExternalSettings {
        name: "mine".to_owned(),
        command: ["/usr/bin/env", "python3", "-c", source].map(str::to_owned).to_vec(),
        processes: 1,
        batch_size: 1,
        max_tasks_per_process: None,
        timeout: Duration::from_secs(20),
        max_answer_bytes: 64 << 10,
    }
}

async fn say(external: &External, word: &str) -> Result<serde_json::Value, ExternalError> {
    let item = to_raw_value(&json!({"say": word})).unwrap();
    external.ask(item).await.map(|answer| serde_json::from_str(answer.get()).unwrap())
}

async fn ended(external: External, tracker: TaskTracker) {
    drop(external);
    tracker.close();
    tokio::time::timeout(Duration::from_secs(30), tracker.wait()).await.expect("all tasks end");
}

fn is_alive(answer: &serde_json::Value) -> bool {
    let pid = i32::try_from(answer["pid"].as_i64().unwrap()).unwrap();
    rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid).unwrap()).is_ok()
}

#[tokio::test]
async fn one_process_answers_all_and_ends_with_its_last_user() {
    let tracker = TaskTracker::new();
    let external = External::start(settings(ECHO), &tracker, CancellationToken::new()).await.unwrap();
    let first = say(&external, "a").await.unwrap();
    let second = say(&external, "b\nc").await.unwrap();
    assert_eq!((&first["said"], &second["said"]), (&json!("a"), &json!("b\nc")));
    assert_eq!(first["pid"], second["pid"]);
    assert!(is_alive(&first));
    ended(external, tracker).await;
    assert!(!is_alive(&first));
}

#[tokio::test]
async fn closing_ends_it_whoever_holds_it() {
    let (tracker, closing) = (TaskTracker::new(), CancellationToken::new());
    let external = External::start(settings(ECHO), &tracker, closing.clone()).await.unwrap();
    let first = say(&external, "a").await.unwrap();
    closing.cancel();
    tracker.close();
    tokio::time::timeout(Duration::from_secs(30), tracker.wait()).await.expect("all tasks end");
    assert!(!is_alive(&first));
    assert_eq!(say(&external, "b").await.unwrap_err().to_string(), "processor mine is being shut down");
}

#[tokio::test]
async fn a_process_is_replaced_after_its_tasks() {
    let tracker = TaskTracker::new();
    let most = ExternalSettings { max_tasks_per_process: Some(2), ..settings(ECHO) };
    let external = External::start(most, &tracker, CancellationToken::new()).await.unwrap();
    let mut pids = Vec::new();
    for _ in 0..5 {
        pids.push(say(&external, "a").await.unwrap()["pid"].clone());
    }
    assert_eq!((&pids[0], &pids[2]), (&pids[1], &pids[3]));
    assert!(pids[1] != pids[2] && pids[3] != pids[4]);
    ended(external, tracker).await;
}

#[tokio::test]
async fn what_waits_goes_together_and_processes_work_side_by_side() {
    let tracker = TaskTracker::new();
    let crew = ExternalSettings { processes: 2, batch_size: 8, ..settings(ECHO) };
    let external = External::start(crew, &tracker, CancellationToken::new()).await.unwrap();
    let all = futures::future::join_all((0..64).map(|n| {
        let external = external.clone();
        async move { (n, say(&external, &n.to_string()).await.unwrap()) }
    }))
    .await;
    let mut pids = std::collections::BTreeSet::new();
    for (n, answer) in &all {
        assert_eq!(answer["said"], n.to_string());
        pids.insert(answer["pid"].to_string());
    }
    let most = all.iter().map(|(_, answer)| answer["together"].as_u64().unwrap()).max();
    assert!((2..=8).contains(&most.unwrap()), "{most:?}");
    assert_eq!(pids.len(), 2);
    ended(external, tracker).await;
}

#[rstest]
#[case::dies("die", "ended (exit status: 1); its last words: an ugly death")]
#[case::hangs("hang", "did not answer within 2 s (processors.mine.timeout); it was killed")]
#[case::talks("nonsense", "answered \"Loading model...\": expected value at line 1 column 1")]
#[case::rambles("long", "it is longer than 65536 bytes")]
#[tokio::test]
async fn one_that_breaks_the_program_costs_the_others_nothing(#[case] word: &str, #[case] says: &str) {
    let tracker = TaskTracker::new();
    let batches = ExternalSettings { batch_size: 4, timeout: Duration::from_secs(2), ..settings(ECHO) };
    let external = External::start(batches, &tracker, CancellationToken::new()).await.unwrap();
    let words = ["a", "b", word, "c", "d", "e"];
    let asked = words.map(|word| {
        let external = external.clone();
        async move { say(&external, word).await }
    });
    let answers = futures::future::join_all(asked).await;
    for (asked, answer) in words.into_iter().zip(answers) {
        match answer {
            Ok(answer) => assert_eq!((answer["said"].as_str(), asked == word), (Some(asked), false)),
            Err(error) => {
                assert_eq!(asked, word);
                assert!(error.to_string().contains(says), "{error}");
            }
        }
    }
    ended(external, tracker).await;
}

#[tokio::test]
async fn whatever_it_writes_to_standard_error_is_taken() {
    let tracker = TaskTracker::new();
    let external = External::start(settings(ECHO), &tracker, CancellationToken::new()).await.unwrap();
    let first = say(&external, "rave").await.unwrap();
    let second = say(&external, "rave").await.unwrap();
    assert_eq!(first["pid"], second["pid"]);
    ended(external, tracker).await;
}

#[tokio::test]
async fn an_accident_is_made_good() {
    let scratch = tempfile::tempdir().unwrap();
    let mark = scratch.path().join("mark");
    let once = format!(
        "import os, sys\nif not os.path.exists({mark:?}): open({mark:?}, 'w'); first = True\nelse: first = False\n"
    );
    let source = once + &ECHO.replace("answers = []", "answers = []\n    if items and first: os._exit(1)");
    let tracker = TaskTracker::new();
    let external = External::start(settings(&source), &tracker, CancellationToken::new()).await.unwrap();
    assert_eq!(say(&external, "a").await.unwrap()["said"], "a");
    ended(external, tracker).await;
}

#[rstest]
#[case::absent(&["/no/such/program"], "\"/no/such/program\" cannot be started: No such file")]
#[case::broken(&["/usr/bin/env", "python3", "-c", "import nowhere"], "last words: ")]
#[case::mute(&["/usr/bin/env", "sleep", "60"], "did not answer within 2 s")]
#[case::other(&["/usr/bin/env", "echo", "hello"], "answered \"hello\"")]
#[tokio::test]
async fn a_start_shows_that_it_works(#[case] command: &[&str], #[case] says: &str) {
    let tracker = TaskTracker::new();
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    let settings = ExternalSettings { command, timeout: Duration::from_secs(2), ..settings(ECHO) };
    let error = External::start(settings, &tracker, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
    tracker.close();
    tokio::time::timeout(Duration::from_secs(10), tracker.wait()).await.expect("nothing is left");
}

#[tokio::test]
async fn what_it_has_started_ends_with_it() {
    let source = "import subprocess, sys, json\nchild = subprocess.Popen(['sleep', '600'])\n".to_owned()
        + &ECHO.replace("os.getpid()", "child.pid");
    let tracker = TaskTracker::new();
    let external = External::start(settings(&source), &tracker, CancellationToken::new()).await.unwrap();
    let answer = say(&external, "a").await.unwrap();
    assert!(is_alive(&answer));
    ended(external, tracker).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_alive(&answer) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_alive(&answer), "it is killed with its parent");
}
