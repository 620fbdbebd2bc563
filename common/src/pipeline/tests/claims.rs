//! Claims: sessions of another node whose packets come here.

use super::*;
use crate::pipeline::balance::Found;
use crate::sync::event::Event;

const FIN_ACK: TcpFlags = TcpFlags(0x11);

/// Where a session of node 2 stands at node 1: as node 2 told it, or as node 2 claimed it from here.
const HOMES: [Home; 2] = [Home::Remote, Home::Local];

/// A session of another node under test.
struct Foreign {
    bench: Bench,
    home: Home,
    slot: RecordIndex,
}

impl Foreign {
    fn new(home: Home) -> Foreign {
        Foreign::with(home, remote_session())
    }

    fn with(home: Home, session: Session) -> Foreign {
        let mut bench = Bench::sharing();
        let slot = match home {
            Home::Local => bench.pipeline.parts.local.insert(&session),
            Home::Remote => bench.remote_writer().insert(&session),
        };
        Foreign { slot: slot.unwrap(), bench, home }
    }

    fn session(&self) -> Session {
        match self.home {
            Home::Local => self.bench.pipeline.parts.local.session(self.slot).unwrap(),
            Home::Remote => self.bench.remote_writer().session(self.slot).unwrap(),
        }
    }

    fn owner(&self) -> (NodeId, Generation) {
        let session = self.session();
        (session.owner, session.generation)
    }

    fn client_sends(&mut self, after_ms: u64, flags: TcpFlags) {
        self.bench.forwarded(START + after_ms, &from_client(flags));
    }

    fn server_sends(&mut self, after_ms: u64, flags: TcpFlags) {
        self.bench.forwarded(START + after_ms, &from_server(endpoint("10.4.2.1:5000"), flags));
    }

    /// What the peer's news does in the secondary: the owner has seen packets.
    fn owner_is_heard(&self) {
        match self.home {
            Home::Local => self.bench.pipeline.parts.local.set_last_sent(self.slot, Millis(0)),
            Home::Remote => self.bench.remote_writer().set_last_sent(self.slot, Millis(0)),
        }
    }

    /// What the secondary does when the news of another owner wins.
    fn is_taken_by(&self, owner: NodeId, generation: Generation) {
        match self.home {
            Home::Local => self.bench.pipeline.parts.local.set_owner(self.slot, owner, generation),
            Home::Remote => self.bench.remote_writer().set_owner(self.slot, owner, generation),
        }
    }

    /// The only notice since the last call: a claim, and of which state.
    fn assert_claim_told(&mut self, state: SessionState) {
        let notices = self.bench.notices();
        let [Notice::Session { event, home, slot }] = notices[..] else { panic!("{notices:?}") };
        assert_eq!((event.kind, home, slot), (EventKind::Claim, self.home, self.slot));
        assert_eq!((event.session.owner, event.session.generation), (NodeId(1), Generation(2)));
        assert_eq!(event.session.state, state);
    }
}

const HERS: (NodeId, Generation) = (NodeId(2), Generation(1));
const OURS: (NodeId, Generation) = (NodeId(1), Generation(2));

#[test]
fn a_session_whose_owner_is_no_member_is_claimed_at_its_clients_first_packet() {
    for home in HOMES {
        let mut foreign = Foreign::new(home);
        foreign.bench.pipeline.parts.sharing.as_ref().unwrap().members.remove(NodeId(2));

        foreign.client_sends(5, TcpFlags::ACK);

        assert_eq!(foreign.owner(), OURS);
        foreign.assert_claim_told(SessionState::TcpEstablished);
        assert_eq!(foreign.session().last_sent, START + 5, "the peers count as told");
        assert_eq!(foreign.bench.counters.value(Counter::SessionsClaimed), 1);
        foreign.client_sends(6, TcpFlags::ACK);
        assert_eq!(foreign.bench.notices(), [], "told once");
    }
}

#[test]
fn a_session_of_a_member_is_claimed_when_its_clients_packets_have_kept_coming() {
    for home in HOMES {
        let mut foreign = Foreign::new(home);
        for after_ms in [0, 100, 199] {
            foreign.client_sends(after_ms, TcpFlags::ACK);
            assert_eq!((foreign.owner(), foreign.bench.notices()), (HERS, vec![]), "{after_ms} ms");
        }
        foreign.client_sends(200, TcpFlags::ACK);
        assert_eq!(foreign.owner(), OURS);
        foreign.assert_claim_told(SessionState::TcpEstablished);
    }
}

#[test]
fn a_pause_of_half_the_timeout_begins_the_holdoff_anew() {
    for home in HOMES {
        let mut foreign = Foreign::new(home);
        let pause = u64::from(foreign.bench.config.timeouts.tcp_established_ms) / 2;
        foreign.client_sends(0, TcpFlags::ACK);
        foreign.client_sends(pause + 1, TcpFlags::ACK);
        foreign.client_sends(pause + 200, TcpFlags::ACK);
        assert_eq!(foreign.owner(), HERS);
        foreign.client_sends(pause + 201, TcpFlags::ACK);
        assert_eq!(foreign.owner(), OURS);
    }
}

#[test]
fn news_from_the_owner_begins_the_holdoff_anew() {
    for home in HOMES {
        let mut foreign = Foreign::new(home);
        foreign.client_sends(0, TcpFlags::ACK);
        foreign.client_sends(150, TcpFlags::ACK);
        foreign.owner_is_heard();
        foreign.client_sends(200, TcpFlags::ACK);
        foreign.client_sends(399, TcpFlags::ACK);
        assert_eq!(foreign.owner(), HERS);
        foreign.client_sends(400, TcpFlags::ACK);
        assert_eq!(foreign.owner(), OURS);
    }
}

#[test]
fn a_servers_packets_never_claim_and_do_not_count_for_the_holdoff() {
    for home in HOMES {
        let mut foreign = Foreign::new(home);
        foreign.bench.pipeline.parts.sharing.as_ref().unwrap().members.remove(NodeId(2));
        for after_ms in [0, 100, 200, 1000] {
            foreign.server_sends(after_ms, TcpFlags::ACK);
        }
        foreign.server_sends(1001, FIN_ACK);
        foreign.server_sends(1002, TcpFlags::RST);
        assert_eq!((foreign.owner(), foreign.bench.notices()), (HERS, vec![]));
        assert_eq!(foreign.session().last_sent, Millis(0));
    }
}

#[test]
fn a_servers_packet_ends_no_session_of_another_node() {
    for home in HOMES {
        let mut foreign = Foreign::new(home);
        foreign.server_sends(0, TcpFlags::RST);
        assert_eq!(foreign.session().state, SessionState::TcpEstablished);
        foreign.server_sends(1, FIN_ACK);
        foreign.server_sends(2, FIN_ACK);
        assert!(!tcp::is_closed(foreign.session().state));
        assert_eq!((foreign.owner(), foreign.bench.notices()), (HERS, vec![]));
        let closing = Session { state: SessionState::TcpFinFromClient, ..remote_session() };
        let mut foreign = Foreign::with(home, closing);
        foreign.server_sends(3, FIN_ACK);
        assert_eq!((foreign.session().state, foreign.owner()), (SessionState::TcpFinFromClient, HERS));
    }
}

#[test]
fn a_clients_packet_that_moves_the_session_on_claims_at_once() {
    for home in HOMES {
        let mut foreign = Foreign::new(home);
        foreign.client_sends(0, FIN_ACK);
        assert_eq!(foreign.owner(), OURS);
        foreign.assert_claim_told(SessionState::TcpFinFromClient);
    }
}

#[test]
fn who_ends_a_session_of_another_node_claims_it_as_it_was_and_tells_its_end() {
    let endings = [
        (SessionState::TcpEstablished, TcpFlags::RST, SessionState::TcpReset),
        (SessionState::TcpFinFromServer, FIN_ACK, SessionState::TcpTimeWait),
    ];
    for (home, (before, flags, after)) in HOMES.into_iter().flat_map(|home| endings.map(|end| (home, end))) {
        let mut foreign = Foreign::with(home, Session { state: before, ..remote_session() });

        foreign.client_sends(7, flags);

        let told = foreign.bench.notices();
        let [claim, end] = [before, after].map(|state| Session {
            owner: NodeId(1),
            generation: Generation(2),
            state,
            last_seen: START + 7,
            ..remote_session()
        });
        let notice =
            |kind, session| Notice::Session { event: Event { kind, session }, home, slot: foreign.slot };
        assert_eq!(told, [notice(EventKind::Claim, claim), notice(EventKind::Delete, end)]);
        assert_eq!((foreign.owner(), foreign.session().state), (OURS, after));
        foreign.client_sends(8, TcpFlags::ACK);
        foreign.server_sends(9, TcpFlags::ACK);
        assert_eq!(foreign.bench.notices(), [], "its last packets pass in silence");
    }
}

#[test]
fn of_two_that_claim_at_once_one_wins_and_the_other_tells_nothing() {
    for home in HOMES {
        let mut foreign = Foreign::new(home);
        foreign.bench.pipeline.parts.sharing.as_ref().unwrap().members.remove(NodeId(2));
        let found =
            Found { home, index: foreign.slot, direction: Direction::Inbound, session: foreign.session() };
        // Between this worker's look at it and its claim, node 3's news is applied.
        foreign.is_taken_by(NodeId(3), Generation(2));

        foreign.bench.pipeline.consider_claim(START, SessionState::TcpEstablished, &found);

        assert_eq!((foreign.owner(), foreign.bench.notices()), ((NodeId(3), Generation(2)), vec![]));
        assert_eq!(foreign.bench.counters.value(Counter::SessionsClaimed), 0);
    }
}

#[test]
fn who_shares_nothing_claims_nothing() {
    let mut foreign = Foreign::new(Home::Remote);
    foreign.bench.pipeline.parts.sharing = None;
    for after_ms in [0, 500, 5000] {
        foreign.client_sends(after_ms, TcpFlags::ACK);
    }
    foreign.client_sends(5001, TcpFlags::RST);
    assert_eq!((foreign.owner(), foreign.bench.notices()), (HERS, vec![]));
}

#[test]
fn a_session_that_was_given_up_is_none() {
    let mut foreign = Foreign::new(Home::Local);
    foreign.is_taken_by(NodeId(0), Generation(0));
    let (verdict, _) = foreign.bench.pass(START, &from_client(TcpFlags::ACK));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoSession));
    foreign.bench.notices();
    foreign.bench.forwarded(START, &from_client(TcpFlags::SYN));
    let session = foreign.bench.session(&from_client(TcpFlags::SYN).key).unwrap();
    assert_eq!((session.owner, session.state), (NodeId(1), SessionState::TcpSynReceived));
}

#[test]
fn a_claimed_sessions_progress_is_told_as_one_of_this_nodes_own() {
    for home in HOMES {
        let mut foreign = Foreign::new(home);
        foreign.client_sends(0, TcpFlags::ACK);
        foreign.client_sends(200, TcpFlags::ACK);
        foreign.bench.notices();
        foreign.server_sends(201, FIN_ACK);
        foreign.client_sends(202, FIN_ACK);
        let told = foreign.bench.events();
        let refresh = (EventKind::Refresh, SessionState::TcpFinFromServer);
        assert_eq!(told, [refresh, (EventKind::Delete, SessionState::TcpTimeWait)]);
    }
}

#[test]
fn a_session_that_another_node_claimed_from_here_keeps_its_place_and_ages_in_silence() {
    let mut foreign = Foreign::new(Home::Local);
    let timeouts = foreign.bench.config.timeouts;
    let timeout = u64::from(timeouts.tcp_established_ms);
    foreign.bench.age(START + timeout);
    assert_eq!(foreign.bench.counters.value(Counter::SessionsExpired), 0, "its owner tells when it ends");
    foreign.bench.age(START + timeout + u64::from(timeouts.remote_margin_ms));
    assert_eq!(foreign.bench.counters.value(Counter::SessionsExpired), 1);
    assert_eq!(foreign.bench.notices(), []);
}

#[test]
fn a_session_that_another_node_has_just_taken_is_not_taken_back_at_once() {
    for home in HOMES {
        let own = Session { owner: NodeId(1), last_sent: START - 5, ..remote_session() };
        let mut foreign = Foreign::with(home, own);
        // The secondary writes the owner first and "last sent" after it: a packet may come in between.
        foreign.is_taken_by(NodeId(2), Generation(2));
        foreign.client_sends(0, TcpFlags::ACK);
        assert_eq!(foreign.owner(), (NodeId(2), Generation(2)));
        foreign.client_sends(199, TcpFlags::ACK);
        assert_eq!(foreign.owner(), (NodeId(2), Generation(2)));
        foreign.client_sends(200, TcpFlags::ACK);
        assert_eq!(foreign.owner(), (NodeId(1), Generation(3)));
    }
}
