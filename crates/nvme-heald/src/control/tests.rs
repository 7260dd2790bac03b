use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;

use super::*;
use crate::testing::Scratch;

/// A daemon that answers `Done` with the request's form; the task ends with the test.
fn daemon(scratch: &Scratch) -> PathBuf {
    let control = Control::open(scratch.path()).unwrap();
    let (inbound, mut inbox) = mpsc::channel::<Inbound>(ROOM);
    tokio::spawn(control.serve(inbound));
    tokio::spawn(async move {
        while let Some(request) = inbox.recv().await {
            let text = format!("{:?} by {}", request.request, request.peer.uid);
            let _ = request.answer.send(Response::Done(text));
        }
    });
    scratch.path().join(SOCKET)
}

pub(super) async fn say(path: &Path, bytes: &[u8]) -> Response {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // The daemon may answer and close before all of a long request is taken.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer.last(), Some(&b'\n'), "{}", String::from_utf8_lossy(&answer));
    serde_json::from_slice(&answer).unwrap()
}

pub(super) fn refusal(response: Response) -> String {
    let Response::Refused(why) = response else {
        panic!("{response:?}");
    };
    why
}

#[tokio::test]
async fn a_request_gets_its_answer_and_the_asker_is_known() {
    let scratch = Scratch::new("control");
    let path = daemon(&scratch);
    let uid = rustix::process::getuid().as_raw();
    let line = b"{\"protocol\":1,\"request\":\"status\"}\n";
    assert_eq!(say(&path, line).await, Response::Done(format!("Status by {uid}")));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[tokio::test]
async fn garbage_is_refused_with_a_reason_and_the_next_client_is_served() {
    let scratch = Scratch::new("control-garbage");
    let path = daemon(&scratch);
    for (bytes, why) in [
        (&b"\n"[..], "not a request"),
        (b"\x00\xff\xfe{\n", "not a request"),
        (b"{\"protocol\":2,\"request\":\"status\"}\n", "speaks protocol 1"),
        (b"{\"protocol\":99,\"request\":{\"dance\":{}}}\n", "speaks protocol 1"),
        (b"{\"protocol\":1,\"request\":\"dance\"}\n", "unknown variant"),
        (b"{\"protocol\":1,\"request\":{\"hold\":{\"array\":\"a\",\"reason\":\"b\",\"duration\":null,\"x\":1}}}\n",
            "unknown field"),
        (b"{\"protocol\":1,\"request\":{\"explain\":{}}}\n", "missing field"),
    ] {
        let answer = refusal(say(&path, bytes).await);
        assert!(answer.contains(why), "{answer}");
    }
    let deep = [b"[".repeat(10_000), b"\n".to_vec()].concat();
    assert!(refusal(say(&path, &deep).await).contains("not a request"));
    let line = b"{\"protocol\":1,\"request\":\"status\"}\n";
    assert!(matches!(say(&path, line).await, Response::Done(_)));
}

#[tokio::test]
async fn an_oversized_request_is_refused_without_being_read_to_its_end() {
    let scratch = Scratch::new("control-large");
    let path = daemon(&scratch);
    let mut bytes = vec![b' '; MAX_REQUEST + 1];
    bytes.push(b'\n');
    assert!(refusal(say(&path, &bytes).await).contains("longer than"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_let_go_of() {
    let scratch = Scratch::new("control-silent");
    let path = daemon(&scratch);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"{\"protocol\":1,").await.unwrap();
    let mut answer = Vec::new();
    // Time is paused: it jumps to the daemon's deadline as soon as everybody waits.
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty());
}

#[tokio::test]
async fn more_clients_than_places_are_turned_away_and_places_come_back() {
    let scratch = Scratch::new("control-many");
    let path = daemon(&scratch);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(UnixStream::connect(&path).await.unwrap());
    }
    let mut extra = UnixStream::connect(&path).await.unwrap();
    let mut answer = Vec::new();
    let _ = extra.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    drop(held);
    let line = b"{\"protocol\":1,\"request\":\"status\"}\n";
    for _ in 0..50 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.write_all(line).await;
        let _ = stream.read_to_end(&mut answer).await;
        if !answer.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no place came back");
}

#[tokio::test]
async fn only_root_may_hold_or_resume() {
    let (inbound, mut inbox) = mpsc::channel::<Inbound>(ROOM);
    let request = || Request::Resume { array: "md0".into() };
    let nobody = Peer { uid: 65534, pid: Some(1) };
    let answer = pass_on(request(), nobody, &inbound).await;
    assert_eq!(refusal(answer), "only root may do that");
    assert!(inbox.try_recv().is_err());
    let root = Peer { uid: 0, pid: None };
    let asked = tokio::spawn(async move { pass_on(request(), root, &inbound).await });
    let arrived = inbox.recv().await.unwrap();
    arrived.answer.send(Response::Done("done".into())).unwrap();
    assert_eq!(asked.await.unwrap(), Response::Done("done".into()));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let scratch = Scratch::new("control-stale");
    let path = scratch.path().join(SOCKET);
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists());
    let control = Control::open(scratch.path()).unwrap();
    let second = Control::open(scratch.path()).unwrap_err();
    assert!(second.to_string().contains("answered by another daemon"), "{second}");
    drop(control);

    let other = Scratch::new("control-file");
    let file =
        std::fs::OpenOptions::new().create_new(true).write(true).open(other.path().join(SOCKET));
    drop(file.unwrap());
    let refused = Control::open(other.path()).unwrap_err();
    assert!(refused.to_string().contains("is not a socket"), "{refused}");
}

#[test]
fn a_group_is_found_by_its_whole_name() {
    let scratch = Scratch::new("control-group");
    let path = scratch.path().join("group");
    let text = "root:x:0:\nnvme-heal-x:x:7:\nnvme-heal:x:998:a,b\nbad\n";
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).open(&path).unwrap();
    io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    assert_eq!(group_id(&path, "nvme-heal"), Some(998));
    assert_eq!(group_id(&path, "nobody"), None);
    assert_eq!(group_id(Path::new("/nonexistent"), "root"), None);
}
