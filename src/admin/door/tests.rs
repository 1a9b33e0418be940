//! A real listener, and peers that hang, dawdle, crowd and pipeline.

use super::*;
use axum::routing::{get, post};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as Peer};

/// No test waits for this.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);
const LONG_ANSWER: usize = 16 << 20;

struct Admin {
    address: SocketAddr,
    crowd: Arc<Crowd>,
}

/// Serves until the test's process ends.
fn admin(patience: Patience) -> Admin {
    let std_listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, crowd) = (std_listener.local_addr().unwrap(), Arc::<Crowd>::default());
    let seen = Arc::clone(&crowd);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let routes = Router::new()
            .route("/", get(async || "here"))
            .route("/much", get(async || "x".repeat(LONG_ANSWER)))
            .route("/never", get(async || std::future::pending::<&str>().await))
            .route("/echo", post(async |body: String| body))
            .route("/whole", post(async |_: String| std::future::pending::<&str>().await));
        runtime.block_on(async { serve(listener(std_listener).unwrap(), routes, seen, patience).await });
    });
    Admin { address, crowd }
}

fn patience() -> Patience {
    Patience { head: LONG, request: LONG, answer: LONG }
}

impl Admin {
    /// A connection on which something was sent.
    fn peer(&self, sent: &str) -> Peer {
        let mut peer = Peer::connect(self.address).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        peer.write_all(sent.as_bytes()).unwrap();
        peer
    }

    fn ask(&self) -> String {
        rest(self.peer("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"))
    }
}

/// What comes until the end.
fn rest(mut peer: Peer) -> String {
    let mut text = Vec::new();
    match peer.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn who_sends_nothing_or_half_a_head_is_let_go_also_after_a_request() {
    let admin = admin(Patience { head: SHORT, ..patience() });
    for sent in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: h\r\n"] {
        let answered = rest(admin.peer(sent));
        assert!(!answered.contains("200"), "{answered}");
    }
    let answered = rest(admin.peer("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with("here"), "{answered}");
}

#[test]
fn a_head_that_comes_byte_by_byte_has_no_more_time_than_another() {
    let admin = admin(Patience { head: Duration::from_millis(300), ..patience() });
    let mut peer = admin.peer("GET / HTTP/1.1\r\n");
    let began = Instant::now();
    while peer.write_all(b"X: y\r\n").is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "it is still heard");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_request_that_is_not_whole_or_takes_too_long_is_answered_so() {
    let admin = admin(Patience { request: SHORT, ..patience() });
    for sent in [
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nfour",
        "GET /never HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    ] {
        let answered = rest(admin.peer(sent));
        assert!(answered.starts_with("HTTP/1.1 503") && answered.contains("\"timeout\""), "{answered}");
    }
}

#[test]
fn who_does_not_take_the_answer_is_let_go() {
    let admin = admin(Patience { answer: SHORT, ..patience() });
    for path in ["/much", "/"] {
        // So many small answers that buffers fill, or a large one.
        let count = if path == "/" { 200_000 } else { 1 };
        let mut peer = admin.peer("");
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        peer.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        let sent = (0..count).try_for_each(|_| peer.write_all(request.as_bytes()));
        wait_until(|| admin.crowd.connections() == 0);
        drop(sent);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let admin = admin(patience());
    let mut peer = admin.peer("");
    for number in 0..50 {
        write!(peer, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{number:02}").unwrap();
    }
    write!(peer, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let answered = rest(peer);
    let bodies: Vec<_> = answered.split("\r\n\r\n").skip(1).map(|body| &body[..2]).collect();
    let expected: Vec<_> = (0..50).map(|number| format!("{number:02}")).chain(["he".into()]).collect();
    assert_eq!(bodies, expected);
}

#[test]
fn a_crowd_that_only_waits_makes_room_and_the_longest_first() {
    let admin = admin(patience());
    let crowd: Vec<_> = (0..CONNECTIONS_MAX).map(|at| admin.peer(["", "GET / HT"][at % 2])).collect();
    wait_until(|| admin.crowd.connections() == CONNECTIONS_MAX as u64);
    let began = Instant::now();
    for answered in (0..5).map(|_| admin.ask()) {
        assert!(answered.ends_with("here"), "{answered}");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // The first made room for the first that asked, whose own place the others could have.
    assert!((1..=5).contains(&admin.crowd.cut()), "{}", admin.crowd.cut());
    let (first, last) = (&crowd[0], &crowd[CONNECTIONS_MAX - 1]);
    assert_eq!((&mut &*first).read(&mut [0; 1]).unwrap(), 0, "it was the first to come");
    last.set_nonblocking(true).unwrap();
    assert_eq!((&mut &*last).read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_crowd_that_sends_half_a_body_makes_room_and_whose_body_is_whole_is_let_be() {
    let admin = admin(patience());
    let whole = admin.peer("POST /whole HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
    let half = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nfour";
    let _crowd: Vec<_> = (1..CONNECTIONS_MAX).map(|_| admin.peer(half)).collect();
    wait_until(|| admin.crowd.connections() == CONNECTIONS_MAX as u64);
    let began = Instant::now();
    let more: Vec<_> = (0..2 * CONNECTIONS_MAX).map(|_| admin.peer(half)).collect();
    assert!(admin.ask().ends_with("here"), "behind all of them");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    whole.set_nonblocking(true).unwrap();
    assert_eq!(
        (&whole).read(&mut [0; 1]).unwrap_err().kind(),
        io::ErrorKind::WouldBlock,
        "it was first, and is worked on"
    );
    drop(more);
}

#[test]
fn there_are_never_more_than_so_many() {
    let admin = admin(patience());
    let crowd: Vec<_> = (0..2 * CONNECTIONS_MAX).map(|_| admin.peer("")).collect();
    let mut most = 0;
    wait_until(|| {
        most = most.max(admin.crowd.connections());
        admin.crowd.cut() >= 8
    });
    assert_eq!(most, CONNECTIONS_MAX as u64);
    crowd.iter().for_each(|peer| drop(peer.shutdown(Shutdown::Both)));
    wait_until(|| admin.crowd.connections() == 0);
}

#[test]
fn whose_request_is_worked_on_is_let_be() {
    let admin = admin(Patience { request: Duration::from_millis(500), ..patience() });
    let crowd: Vec<_> = (0..CONNECTIONS_MAX).map(|_| admin.peer("GET /never HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
    assert!(admin.ask().ends_with("here"), "when the first was answered");
    for mut peer in crowd {
        let mut answered = [0; 12];
        peer.read_exact(&mut answered).unwrap();
        assert_eq!(&answered, b"HTTP/1.1 503");
    }
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}
