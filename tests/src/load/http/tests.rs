use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

/// What a test server does with a connection.
#[derive(Clone, Copy)]
enum Conduct {
    Answer,
    CloseAfterThree,
    ResetAfterThree,
    FallSilentAfterThree,
    GiveAnothersAnswerAfterThree,
    ChangeNameAfterThree,
}

/// A server on the loopback whose first connection behaves as told, and all others well. Ends with the test process.
fn server(first: Conduct) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let conduct = if number == 0 { first } else { Conduct::Answer };
            std::thread::spawn(move || serve(stream.unwrap(), conduct));
        }
    });
    address
}

fn serve(stream: TcpStream, conduct: Conduct) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut answered = 0;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let Some(number) = line.strip_prefix("GET /?n=").and_then(|rest| rest.split(' ').next()) else {
            continue;
        };
        let mut number: u64 = number.parse().unwrap();
        let mut name = "s1";
        if answered >= 3 {
            match conduct {
                Conduct::Answer => {}
                Conduct::CloseAfterThree => return,
                Conduct::ResetAfterThree => {
                    // Closing while something is unread makes the kernel send a RST.
                    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger)
                        .unwrap();
                    return;
                }
                Conduct::FallSilentAfterThree => {
                    std::thread::sleep(Duration::from_secs(60));
                    return;
                }
                Conduct::GiveAnothersAnswerAfterThree => number += 1,
                Conduct::ChangeNameAfterThree => name = "s2",
            }
        }
        let body = format!("{name} {number}\n");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if (&stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
        answered += 1;
    }
}

fn load(target: SocketAddr) -> Report {
    let dir = tempfile::tempdir().unwrap();
    run(&Arguments {
        target,
        connections: 8,
        interval_ms: 20,
        timeout_ms: 500,
        pace: pace::Limits {
            seconds: 1,
            until_file: None,
            ready_file: Some(dir.path().join("ready")),
            report_file: None,
            progress: false,
        },
    })
    .unwrap()
}

#[test]
fn a_good_server_loses_nothing_and_answers_everything() {
    let report = load(server(Conduct::Answer));
    assert_eq!((report.opened, report.alive, report.lost), (8, 8, 0), "{report:?}");
    assert_eq!(report.requests, report.answers);
    assert!(report.is_whole() && report.answers > 8);
    assert_eq!(report.servers, BTreeMap::from([("s1".to_owned(), 8)]));
}

#[test]
fn a_lost_connection_stays_lost_and_its_reason_is_counted() {
    let counts =
        |report: &Report| (report.lost_reset, report.lost_closed, report.lost_timeout, report.lost_wrong);
    for (conduct, expected) in [
        (Conduct::ResetAfterThree, (1, 0, 0, 0)),
        (Conduct::CloseAfterThree, (0, 1, 0, 0)),
        (Conduct::FallSilentAfterThree, (0, 0, 1, 0)),
        (Conduct::GiveAnothersAnswerAfterThree, (0, 0, 0, 1)),
        (Conduct::ChangeNameAfterThree, (0, 0, 0, 1)),
    ] {
        let report = load(server(conduct));
        assert_eq!((report.opened, report.alive, report.lost), (8, 7, 1), "{report:?}");
        assert_eq!(counts(&report), expected, "{report:?}");
        assert!(!report.is_whole());
    }
}

#[test]
fn a_silent_server_shows_as_a_pause_as_long_as_the_timeout() {
    let report = load(server(Conduct::FallSilentAfterThree));
    assert!(report.longest_pause_ms >= 500.0, "{report:?}");
}

#[test]
fn connections_that_nobody_accepts_are_not_opened_and_not_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let report = load(address);
    assert_eq!((report.opened, report.lost, report.not_opened), (0, 0, 8), "{report:?}");
    assert!(!report.is_whole());
}
