//! The wrapper on virtual devices, without root and hugepages.
//!
//! EAL starts once in a process, so every test needs a process of its own: `cargo nextest run` gives it one.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk::{
    Burst, Device, Eal, EalError, EalOptions, FlowAction, FlowError, FlowMatch, FlowRules, LaunchError,
    Mempool, MempoolError, PoolConfig, PoolOps, Port, PortConfig, PortError, ProcessType, RxQueueConfig,
    TakeOver, mbuf_ring,
};
use tempfile::TempDir;

/// What a test starts DPDK with, and the directory that DPDK then writes to.
struct Node {
    options: EalOptions,
    runtime: TempDir,
}

impl Node {
    /// A primary without root: lcore 0, and lcore 1 on the same CPU.
    fn new() -> Self {
        let runtime = tempfile::tempdir().unwrap();
        let options = EalOptions::new(ProcessType::Primary, "test")
            .lcore(0, &[0])
            .lcore(1, &[0])
            .runtime_dir(runtime.path())
            .no_huge()
            .memory_mib(64);
        Self { options, runtime }
    }

    fn with(self, change: impl FnOnce(EalOptions) -> EalOptions) -> Self {
        Self { options: change(self.options), ..self }
    }

    fn start(self) -> Result<Running, EalError> {
        self.options.start().map(|eal| Running { eal, _runtime: self.runtime })
    }
}

/// DPDK, started.
struct Running {
    eal: Eal,
    _runtime: TempDir,
}

impl Deref for Running {
    type Target = Eal;

    fn deref(&self) -> &Eal {
        &self.eal
    }
}

fn start(vdev: &str) -> Running {
    Node::new().with(|options| options.vdev(vdev)).start().unwrap_or_else(|error| panic!("{error}"))
}

fn pool(eal: &Eal, count: u32) -> Mempool {
    let config = PoolConfig { count, cache: 0, data_bytes: 2048, socket: -1, ops: PoolOps::MultiThread };
    Mempool::create(eal, "packets", &config).unwrap()
}

fn port_config(pool: &Mempool, queues: u16) -> PortConfig {
    PortConfig {
        rx_queues: vec![RxQueueConfig { pool: pool.clone() }; usize::from(queues)],
        tx_queues: queues,
        rx_descriptors: 256,
        tx_descriptors: 256,
        mtu: 1500,
        promiscuous: false,
        spread: false,
    }
}

fn start_port(eal: &Eal, device: &str, pool: &Mempool) -> Port {
    Device::find(eal, device).unwrap().start(&port_config(pool, 2)).unwrap()
}

#[test]
fn a_transmit_takes_what_fits_and_every_buffer_is_freed_once() {
    let eal = start("net_ring0");
    let pool = pool(&eal, 2047);
    let port = start_port(&eal, "net_ring0", &pool);
    let (mut rx, mut tx) = (port.take_rx_queue(0).unwrap(), port.take_tx_queue(0).unwrap());
    let at_start = pool.available();

    // The device's ring holds 1023 packets.
    let mut burst = Burst::<1200>::new();
    assert!(pool.alloc_burst(&mut burst, 1200));
    for (number, packet) in burst.iter_mut().enumerate() {
        packet.append(&(number as u32).to_ne_bytes()).unwrap();
    }
    assert_eq!(tx.burst(&mut burst), 1023);
    assert_eq!(burst.len(), 177);
    assert_eq!(burst[0].data(), 1023_u32.to_ne_bytes());
    assert_eq!(burst[176].data(), 1199_u32.to_ne_bytes());
    assert_eq!(tx.burst(&mut burst), 0);
    drop(burst);
    assert_eq!(pool.in_use(), 1023);

    let mut received = Burst::<2000>::new();
    assert_eq!(rx.burst(&mut received), 1023);
    assert_eq!(received[1022].data(), 1022_u32.to_ne_bytes());
    drop(received);
    assert_eq!(pool.available(), at_start);

    // A buffer that was freed twice would now be given out twice.
    let mut all = Vec::new();
    while let Some(mut packet) = pool.alloc() {
        packet.append(&[0]).unwrap();
        all.push(packet);
    }
    let mut addresses: Vec<_> = all.iter().map(|packet| packet.data().as_ptr()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 2047);
}

#[test]
fn a_receive_adds_behind_what_the_burst_holds() {
    let eal = start("net_ring0");
    let pool = pool(&eal, 255);
    let port = start_port(&eal, "net_ring0", &pool);
    let (mut rx, mut tx) = (port.take_rx_queue(1).unwrap(), port.take_tx_queue(1).unwrap());

    let mut burst = Burst::<4>::new();
    for byte in 0..4 {
        burst.push(pool.alloc_with(&[byte]).unwrap()).unwrap();
    }
    assert_eq!(tx.burst(&mut burst), 4);
    let mut received = Burst::<4>::new();
    received.push(pool.alloc_with(&[9]).unwrap()).unwrap();
    assert_eq!(rx.burst(&mut received), 3);
    assert!(received.is_full());
    let bytes: Vec<u8> = received.drain().map(|packet| packet.data()[0]).collect();
    assert_eq!(bytes, [9, 0, 1, 2]);
    assert_eq!(pool.in_use(), 1);
}

#[test]
fn a_drain_that_stops_early_frees_the_rest() {
    let eal = start("net_null0");
    let pool = pool(&eal, 255);
    let mut burst = Burst::<8>::new();
    assert!(pool.alloc_burst(&mut burst, 8));
    assert!(!pool.alloc_burst(&mut burst, 1));
    let first = burst.drain().next();
    assert_eq!(pool.in_use(), 1);
    drop(first);
    assert_eq!(pool.in_use(), 0);
    assert!(burst.pop().is_none());
}

#[test]
fn a_buffer_grows_and_shrinks_at_both_ends() {
    let eal = start("net_null0");
    let pool = pool(&eal, 255);
    let mut packet = pool.alloc_with(b"payload").unwrap();
    packet.prepend(b"head").unwrap();
    packet.append(b"tail").unwrap();
    packet.data_mut()[4] = b'P';
    assert_eq!(packet.data(), b"headPayloadtail");
    assert_eq!((packet.segments(), packet.packet_len()), (1, 15));
    packet.strip_front(4).unwrap();
    packet.strip_back(4).unwrap();
    assert_eq!(packet.data(), b"Payload");

    assert!(packet.prepend(&[0; 129]).is_err());
    assert!(packet.append(&[0; 2048]).is_err());
    assert!(packet.strip_front(8).is_err());
    assert!(packet.strip_back(8).is_err());
    assert_eq!(packet.data(), b"Payload");
    assert!(pool.alloc_with(&[0; 2049]).is_none());
    assert_eq!(pool.in_use(), 1);
}

#[test]
fn an_empty_pool_gives_none() {
    let eal = start("net_null0");
    let pool = pool(&eal, 3);
    let held: Vec<_> = (0..3).map(|_| pool.alloc().unwrap()).collect();
    assert!(pool.alloc().is_none());
    assert!(!pool.alloc_burst(&mut Burst::<4>::new(), 1));
    drop(held);
    assert_eq!(pool.available(), 3);
}

#[test]
fn a_pool_is_found_by_its_name_only() {
    let eal = start("net_null0");
    let pool = pool(&eal, 255);
    assert_eq!(Mempool::lookup(&eal, "packets").unwrap().available(), pool.available());
    assert!(matches!(Mempool::lookup(&eal, "others"), Err(MempoolError::Lookup { .. })));
}

#[test]
fn a_pool_that_memory_cannot_hold_is_an_error() {
    let eal = start("net_null0");
    let config = PoolConfig {
        count: (1 << 20) - 1,
        cache: 0,
        data_bytes: 2048,
        socket: -1,
        ops: PoolOps::SingleThread,
    };
    let error = Mempool::create(&eal, "huge", &config).unwrap_err();
    assert!(error.to_string().contains("huge"), "{error}");
}

#[test]
fn taking_over_a_whole_pool_changes_nothing() {
    let eal = start("net_null0");
    let config =
        PoolConfig { count: 255, cache: 0, data_bytes: 2048, socket: -1, ops: PoolOps::SingleThread };
    let pool = Mempool::create(&eal, "own", &config).unwrap();
    let held = pool.alloc_with(&[1]).unwrap();

    assert_eq!(pool.take_over(), TakeOver { giving: 0, taking: 0 });

    assert_eq!(pool.in_use(), 1);
    drop(held);
    let mut all = Burst::<255>::new();
    assert!(pool.alloc_burst(&mut all, 255));
}

#[test]
#[should_panic(expected = "single thread")]
fn a_pool_of_many_threads_cannot_be_taken_over() {
    pool(&start("net_null0"), 255).take_over();
}

#[test]
fn a_ring_hands_over_in_order_and_frees_what_is_left() {
    let eal = start("net_null0");
    let pool = pool(&eal, 255);
    let (mut producer, mut consumer) = mbuf_ring(&eal, "handoff", 8, -1).unwrap();
    let mut burst = Burst::<8>::new();
    for byte in 0..6 {
        burst.push(pool.alloc_with(&[byte]).unwrap()).unwrap();
    }
    assert_eq!(producer.burst(&mut burst), 6);
    assert!(burst.is_empty());
    producer.push(pool.alloc_with(&[6]).unwrap()).unwrap();
    let refused = producer.push(pool.alloc_with(&[7]).unwrap()).unwrap_err();
    assert_eq!(refused.data(), [7]);
    drop(refused);

    let mut received = Burst::<4>::new();
    assert_eq!(consumer.burst(&mut received), 4);
    let bytes: Vec<u8> = received.iter().map(|packet| packet.data()[0]).collect();
    assert_eq!(bytes, [0, 1, 2, 3]);
    received.clear();
    assert_eq!(pool.in_use(), 3);
    drop(consumer);
    assert_eq!(pool.in_use(), 3);
    drop(producer);
    assert_eq!(pool.in_use(), 0);
    assert!(mbuf_ring(&eal, "handoff", 8, -1).is_ok());
}

#[test]
fn a_ring_of_no_power_of_two_is_an_error() {
    let eal = start("net_null0");
    let error = mbuf_ring(&eal, "odd", 7, -1).unwrap_err();
    assert!(error.to_string().contains("power of two"), "{error}");
}

#[test]
fn packets_cross_between_lcores_and_none_is_lost() {
    let eal = start("net_null0");
    let pool = pool(&eal, 255);
    let (mut producer, mut consumer) = mbuf_ring(&eal, "cross", 64, -1).unwrap();
    let sum = Arc::new(AtomicU32::new(0));
    let total = Arc::clone(&sum);
    eal.launch(1, move || {
        let mut burst = Burst::<32>::new();
        let mut seen = 0;
        while seen < 10_000 {
            seen += consumer.burst(&mut burst);
            for packet in burst.drain() {
                let bytes = packet.data().try_into().unwrap();
                total.fetch_add(u32::from_ne_bytes(bytes), Ordering::Relaxed);
            }
            std::thread::yield_now();
        }
    })
    .unwrap();
    for number in 0..10_000_u32 {
        let mut next = None;
        while next.is_none() {
            next = pool.alloc_with(&number.to_ne_bytes());
        }
        let mut next = next.unwrap();
        while let Err(back) = producer.push(next) {
            next = back;
            std::thread::yield_now();
        }
    }
    eal.wait_lcore(1).unwrap();
    assert_eq!(sum.load(Ordering::Relaxed), (0..10_000).sum());
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_panicking_worker_is_reported_and_its_lcore_runs_the_next() {
    let eal = start("net_null0");
    assert_eq!(eal.worker_lcores(), [1]);
    eal.launch(1, || panic!("on purpose")).unwrap();
    assert!(matches!(eal.wait_lcore(1), Err(LaunchError::Panicked(1))));
    eal.launch(1, || ()).unwrap();
    assert!(eal.wait_lcore(1).is_ok());
    assert!(matches!(eal.launch(0, || ()), Err(LaunchError::NotAWorker(0))));
    assert!(matches!(eal.launch(77, || ()), Err(LaunchError::NotAWorker(77))));
    assert!(matches!(eal.wait_lcore(5000), Err(LaunchError::NotAWorker(5000))));
}

#[test]
fn a_busy_lcore_refuses_a_second_worker() {
    let eal = start("net_null0");
    let (release, wait) = std::sync::mpsc::channel::<()>();
    eal.launch(1, move || wait.recv().unwrap()).unwrap();
    assert!(eal.is_running(1));
    assert!(matches!(eal.launch(1, || ()), Err(LaunchError::Busy(1))));
    release.send(()).unwrap();
    eal.wait_lcore(1).unwrap();
    assert!(!eal.is_running(1));
}

#[test]
fn devices_without_flow_rules_say_so() {
    let node = Node::new().with(|options| options.vdev("net_ring0").vdev("net_null0"));
    let eal = node.start().unwrap_or_else(|error| panic!("{error}"));
    let pool = pool(&eal, 2047);
    for device in ["net_ring0", "net_null0"] {
        let port = start_port(&eal, device, &pool);
        let mut rules = FlowRules::new(&eal, &port).unwrap();
        assert!(matches!(rules.probe(), Err(FlowError::Unsupported { .. })), "{device}");
        let any = rules.insert(FlowMatch::Any, 1, &FlowAction::Queue(0));
        assert!(matches!(any, Err(FlowError::Unsupported { .. })), "{device}");
        assert!(matches!(FlowRules::new(&eal, &port), Err(FlowError::InUse(_))), "{device}");
    }
}

#[test]
fn a_queue_is_dealt_out_once_and_only_if_it_exists() {
    let eal = start("net_null0");
    let pool = pool(&eal, 2047);
    let port = start_port(&eal, "net_null0", &pool);
    let first = port.take_rx_queue(0).unwrap();
    assert!(matches!(port.take_rx_queue(0), Err(PortError::Queue { queue: 0, queues: 2, .. })));
    let again = Port::attach(&eal, "net_null0").unwrap();
    assert!(again.take_rx_queue(0).is_err());
    assert!(again.take_tx_queue(0).is_ok());
    assert!(matches!(port.take_rx_queue(2), Err(PortError::Queue { queue: 2, queues: 2, .. })));
    drop(first);
    assert!(port.take_rx_queue(0).is_ok());
}

#[test]
fn a_port_stops_only_without_owners_and_starts_with_fewer_queues() {
    let eal = start("net_null0");
    let pool = pool(&eal, 2047);
    let port = start_port(&eal, "net_null0", &pool);
    let queue = port.take_rx_queue(1).unwrap();
    assert!(matches!(port.stop(&eal), Err(PortError::InUse(_))));
    drop(queue);
    let device = Port::attach(&eal, "net_null0").unwrap().stop(&eal).unwrap();
    let port = device.start(&port_config(&pool, 1)).unwrap();
    assert!(port.take_rx_queue(1).is_err());
    let mut queue = port.take_rx_queue(0).unwrap();
    let mut burst = Burst::<16>::new();
    assert_eq!(queue.burst(&mut burst), 16);
}

#[test]
fn a_port_says_what_it_is_and_counts() {
    let eal = start("net_ring0");
    let pool = pool(&eal, 255);
    let port = start_port(&eal, "net_ring0", &pool);
    let capabilities = port.capabilities().unwrap();
    assert_eq!(capabilities.driver, "net_ring");
    assert!(capabilities.rx_queues_max >= 2);
    assert_eq!(capabilities.interface, None);
    assert!(port.link().unwrap().up);
    assert_eq!(port.mtu().unwrap(), 1500);

    let (mut rx, mut tx) = (port.take_rx_queue(0).unwrap(), port.take_tx_queue(0).unwrap());
    let mut burst = Burst::<4>::new();
    burst.push(pool.alloc_with(&[0; 60]).unwrap()).unwrap();
    tx.burst(&mut burst);
    rx.burst(&mut burst);
    let stats = port.stats().unwrap();
    assert_eq!((stats.tx_packets, stats.rx_packets), (1, 1));
    let extended = port.extended_stats().unwrap();
    assert!(extended.contains(&("rx_good_packets".to_owned(), 1)), "{extended:?}");
}

#[test]
fn errors_of_ports_name_what_was_asked_for() {
    let eal = start("net_null0");
    let pool = pool(&eal, 255);
    assert!(matches!(Device::find(&eal, "net_tap7"), Err(PortError::NotFound(name)) if name == "net_tap7"));
    assert!(matches!(Port::attach(&eal, "a\0b"), Err(PortError::NotFound(_))));
    let device = Device::find(&eal, "net_null0").unwrap();
    assert!(matches!(
        device.start(&port_config(&pool, 5000)),
        Err(PortError::TooManyQueues { rx: 5000, .. })
    ));
}

#[test]
fn a_cpu_that_is_not_there_is_an_error_and_no_crash() {
    let error = Node::new().with(|options| options.lcore(9, &[1000])).start().err().unwrap();
    assert!(matches!(&error, EalError::Init { arguments, .. } if arguments.contains("9@(1000)")), "{error}");
}

#[test]
fn a_bad_argument_is_an_error_and_no_crash() {
    let error = Node::new().with(|options| options.argument("--no-such-option")).start().err().unwrap();
    assert!(error.to_string().contains("--no-such-option"), "{error}");
}

#[test]
fn a_driver_that_is_not_there_is_an_error_and_no_crash() {
    assert!(matches!(
        Node::new().with(|options| options.vdev("net_nonsense0")).start(),
        Err(EalError::Init { .. })
    ));
}

#[test]
fn a_secondary_without_a_primary_is_an_error_and_no_crash() {
    let runtime = tempfile::tempdir().unwrap();
    let options = EalOptions::new(ProcessType::Secondary, "alone").lcore(2, &[0]).runtime_dir(runtime.path());
    assert!(matches!(options.start(), Err(EalError::Init { .. })));
}

#[test]
fn dpdk_starts_once_in_a_process() {
    let _eal = start("net_null0");
    assert!(matches!(Node::new().start(), Err(EalError::AlreadyStarted)));
}
