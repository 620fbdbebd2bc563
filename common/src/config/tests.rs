use std::path::Path;

use super::*;

/// The sample with each `(from, to)` replaced; each `from` must occur.
fn changed(changes: &[(&str, &str)]) -> String {
    let mut text = SAMPLE.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "the sample does not contain {from:?}");
        text = text.replacen(from, to, 1);
    }
    text
}

fn problems(changes: &[(&str, &str)]) -> Vec<Problem> {
    Config::parse(&changed(changes), "x.ron").expect_err("an error").problems().to_vec()
}

/// The one problem after the changes: field, found, expected, remedy.
fn problem(changes: &[(&str, &str)]) -> Problem {
    let problems = problems(changes);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().unwrap()
}

/// The text at a problem's place, to the end of the line.
fn text_at(text: &str, position: Position) -> String {
    text.lines().nth(position.line - 1).unwrap().chars().skip(position.column - 1).collect()
}

#[test]
fn every_file_in_conf_is_valid() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf");
    let mut files = 0;
    for entry in std::fs::read_dir(conf).unwrap() {
        let path = entry.unwrap().path();
        Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        files += 1;
    }
    assert!(files >= 2);
}

#[test]
fn the_sample_says_what_it_seems_to_say() {
    let config = Config::parse(SAMPLE, "sample").unwrap();
    assert_eq!(config.node, Node { id: NodeId(1), cluster: 1, name: "lb1".to_owned() });
    assert_eq!(config.port.mac, Some([0x02, 0xba, 0x70, 0, 0, 1]));
    assert_eq!(config.workers[1].local_addresses[0], Address::v4([198, 51, 100, 2]));
    assert_eq!(config.services[0].real_servers[0].weight, 2);
    assert_eq!(config.services[1].vip.to_string(), "[2001:db8:9::1]:80");
    assert_eq!(config.services[2].protocol, Protocol::Udp);
    assert_eq!(config.sync.peers[0].addresses, ["192.0.2.102".parse::<IpAddr>().unwrap()]);
}

#[test]
fn what_the_sample_calls_a_default_is_the_default() {
    let short = Config::parse(
        r#"(
            node: (id: 1, name: "lb1"),
            eal: (vdevs: ["net_tap0,iface=lb0"]),
            port: (device: "net_tap0", mac: "02:ba:70:00:00:01"),
            workers: [
                (lcore: 1, cpu: 1, local_addresses: ["198.51.100.1", "2001:db8:4:1::1"]),
                (lcore: 2, cpu: 2, local_addresses: ["198.51.100.2", "2001:db8:4:1::2"]),
            ],
        )"#,
        "short",
    )
    .unwrap();
    let mut sample = Config::parse(SAMPLE, "sample").unwrap();
    sample.services.clear();
    sample.sync.enabled = false;
    sample.sync.domains.clear();
    sample.sync.peers.clear();
    sample.metrics = Metrics::default();
    assert_eq!(short, sample);
}

#[test]
fn datagrams_are_sealed_unless_the_file_says_off() {
    let key_file = |path: &str| Security::Aead { key_file: path.into() };
    let security = |changes: &[(&str, &str)]| Config::parse(&changed(changes), "x").unwrap().sync.security;
    let line = r#"security: Aead(key_file: "/etc/baton/sync.key"),"#;

    assert_eq!(security(&[(line, "")]), key_file(DEFAULT_KEY_FILE));
    assert_eq!(security(&[(line, r#"security: Aead(key_file: "/k"),"#)]), key_file("/k"));
    assert_eq!(security(&[(line, "security: Off,")]), Security::Off);
}

#[test]
fn check_looks_into_the_key_file_if_it_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let (path, keys) = (directory.path().join("baton.ron"), directory.path().join("sync.key"));
    let check = |changes: &[(&str, &str)]| {
        std::fs::write(&path, changed(changes)).unwrap();
        check_report(&path)
    };
    let named = ("/etc/baton/sync.key\"),", &*format!("{}\"),", keys.display()));

    let (report, good) = check(&[named]);
    assert!(
        !good && report.contains("sync.security.key_file: ") && report.contains("batonctl key new"),
        "{report}"
    );
    let line = changed(&[named]).lines().position(|line| line.contains("security: Aead")).unwrap() + 1;
    assert!(report.starts_with(&format!("{}:{line}:34: ", path.display())), "{report}");

    KeyFile::generate().unwrap().create(&keys).unwrap();
    assert_eq!(check(&[named]), (format!("{}: ok", path.display()), true));

    std::fs::write(&keys, "1 seal 00").unwrap();
    let (report, good) = check(&[named]);
    assert!(!good && report.contains("sync.key:1: found a key of 2 digits"), "{report}");

    assert!(check(&[named, ("enabled: true", "enabled: false")]).1, "nobody reads it then");
    let (report, good) = check(&[(r#"security: Aead(key_file: "/etc/baton/sync.key")"#, "security: Off")]);
    assert!(good && report.contains("ok, but sync.security is Off"), "{report}");
}

#[test]
fn an_optional_value_may_be_wrapped_or_not() {
    let wrapped = changed(&[(r#"mac: "02:ba:70:00:00:01""#, r#"mac: Some("02:ba:70:00:00:01")"#)]);
    assert_eq!(Config::parse(&wrapped, "x").unwrap(), Config::parse(SAMPLE, "x").unwrap());
}

#[test]
fn a_missing_file_is_named() {
    let (report, good) = check_report(Path::new("/nonexistent/baton.ron"));
    assert!(!good);
    assert!(
        report.starts_with("/nonexistent/baton.ron: cannot read the configuration: No such file"),
        "{report}"
    );
}

#[test]
fn an_unknown_field_is_placed_and_the_meant_one_named() {
    let changes = [("weight: 2", "wieght: 2")];
    let problem = problem(&changes);
    assert_eq!(problem.found, "the unknown field `wieght`");
    assert_eq!(problem.remedy, "write `weight`, or take the field away");
    assert!(problem.field.starts_with("services[0].real_servers[0]"), "{}", problem.field);
    assert_eq!(text_at(&changed(&changes), problem.position), "wieght: 2,");
}

#[test]
fn another_kind_of_security_is_none() {
    let problem = problem(&[(r#"security: Aead(key_file: "/etc/baton/sync.key")"#, "security: On")]);
    assert_eq!((problem.found.as_str(), problem.expected.as_str()), ("`On`", "one of `Aead`, `Off`"));
}

#[test]
fn a_missing_field_is_named() {
    let changes = [("        id: 1,\n", "")];
    let problem = problem(&changes);
    assert!(changed(&changes).lines().nth(problem.position.line - 1).unwrap().contains("node: ("));
    assert_eq!((problem.field.as_str(), problem.expected.as_str()), ("node", "`id`"));
}

#[test]
fn a_value_of_another_kind_is_placed() {
    let changes = [("weight: 2", "weight: \"two\"")];
    let problem = problem(&changes);
    assert_eq!(problem.field, "services[0].real_servers[0].weight");
    assert_eq!(text_at(&changed(&changes), problem.position), "\"two\",");
}

#[test]
fn a_broken_bracket_is_reported_with_its_line() {
    let problem = problem(&[(
        "(endpoint: \"192.0.2.12:8080\"),\n            ],",
        "(endpoint: \"192.0.2.12:8080\"),\n",
    )]);
    assert!(problem.field.starts_with("services[0].real_servers"), "{problem}");
    assert!(problem.position.line > 1);
}

#[test]
fn a_number_out_of_range_is_placed_with_its_range() {
    let changes = [("weight: 2", "weight: 70000")];
    let problem = problem(&changes);
    assert_eq!(text_at(&changed(&changes), problem.position), "70000,");
    assert_eq!(
        problem.to_string(),
        format!(
            "x.ron:{}:{}: services[0].real_servers[0].weight: found 70000, expected 0..=65535; lower it",
            problem.position.line, problem.position.column
        )
    );
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_text() {
    let problems = problems(&[
        ("flush_us: 200", "flush_us: 0"),
        ("mtu: 1500", "mtu: 99"),
        ("id: 1,", "id: 0,"),
        ("\"192.0.2.12:8080\"", "\"192.0.2.12\""),
    ]);
    let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(
        fields,
        ["node.id", "port.mtu", "services[0].real_servers[1].endpoint", "sync.mtu", "sync.flush_us"]
    );
}

/// Changes of the sample, the field that is then wrong, a part of the message.
type Rule<'r> = (&'r [(&'r str, &'r str)], &'r str, &'r str);

/// Each change of the sample makes exactly one problem, at this field, and the message contains this.
#[test]
fn each_rule_is_reported_once_at_its_field() {
    let rules: &[Rule] = &[
        (&[("lcore: 2,", "lcore: 1,")], "workers[1].lcore", "1, which is workers[0].lcore too"),
        (&[("main_lcore: 0", "main_lcore: 32")], "sync.domains[0].lcore", "eal.main_lcore too"),
        (&[("node: 2", "node: 1")], "sync.peers[0].node", "this node's own id"),
        (
            &[("192.0.2.12:8080", "192.0.2.11:8080")],
            "services[0].real_servers[1].endpoint",
            "an endpoint of its own",
        ),
        (
            &[("192.0.2.12:8080", "[2001:db8::1]:8080")],
            "services[0].real_servers[1].endpoint",
            "VIP's family",
        ),
        (&[(r#""198.51.100.2", "#, "")], "workers[1].local_addresses", "found no IPv4 address"),
        (
            &[("\"198.51.100.2\"", "\"198.51.100.1\"")],
            "workers[1].local_addresses[0]",
            "workers[0].local_addresses[0]",
        ),
        (&[("2001:db8:4:1::2", "2001:db8:9::1")], "services[1].vip", "workers[1].local_addresses[1] too"),
        (
            &[("\"198.51.100.2\"", "\"192.0.2.101\"")],
            "sync.domains[0].address",
            "workers[1].local_addresses[0] too",
        ),
        (&[("[\"192.0.2.102\"]", "[\"2001:db8::2\"]")], "sync.peers[0].addresses[0]", "has one family"),
        (&[("event_ring_slots: 16384", "event_ring_slots: 1000")], "tables.event_ring_slots", "512 or 1024"),
        (&[("local_ports: (1024, 65535)", "local_ports: (2000, 1000)")], "tables.local_ports", "swap them"),
        (
            &[("local_ports: (1024, 65535)", "local_ports: (1024, 65536)")],
            "tables.local_ports[1]",
            "1..=65535",
        ),
        (
            &[("numa: 0,\n            // Required", "numa: 1,\n            // Required")],
            "workers[0].numa",
            "NUMA node 1",
        ),
        (&[("interface: \"punt0\"", "interface: \"punt-interface-0\"")], "punt.interface", "16 bytes"),
        (&[("interface: \"punt0\"", "interface: \"lb0\"")], "eal.vdevs[0]", "the punt interface too"),
        (&[("device: \"net_tap0\"", "device: \"net_tap1\"")], "port.device", "one of net_tap0"),
        (&[("mbufs: 32768,", "mbufs: 4095,")], "port.mbufs", "at least 4096"),
        (&[("memory_mib: 256", "memory_mib: 64")], "port.mbufs", "raise eal.memory_mib to 106 or more"),
        (&[("\"02:ba:70:00:00:01\"", "\"03:ba:70:00:00:01\"")], "port.mac", "unicast"),
        (&[("\"02:ba:70:00:00:01\"", "\"02:ba:70:00:00\"")], "port.mac", "six bytes"),
        (&[("\"/run/baton\"", "\"run/baton\"")], "paths.runtime", "absolute"),
        (&[("\"/run/baton\"", "\"/run/baton-hugepages/x\"")], "paths.runtime", "outside"),
        (&[("name: \"dns\"", "name: \"web\"")], "services[2].name", "services[0].name too"),
        (
            &[("203.0.113.1:53\", protocol: Udp", "203.0.113.1:80\"")],
            "services[2].vip",
            "services[0].vip too",
        ),
        (&[("\"203.0.113.1:53\"", "\"224.0.0.1:53\"")], "services[2].vip", "multicast"),
        (&[("\"203.0.113.1:53\"", "\"203.0.113.1:0\"")], "services[2].vip", "port 0"),
        (
            &[("\"198.51.100.2\"", "\"::ffff:198.51.100.2\"")],
            "workers[1].local_addresses[0]",
            "as 198.51.100.2",
        ),
        (&[("sleep_us_max: 100),\n\n", "sleep_us_max: 0),\n\n")], "idle.sleep_us_max", "1..=10000"),
        (&[("log: \"info\"", "log: \"\"")], "log", "an empty filter"),
        (
            &[("\"/etc/baton/sync.key\"),", "\"sync.key\"),")],
            "sync.security.key_file",
            "absolute path of a file",
        ),
        (&[("127.0.0.1:9909", "127.0.0.1")], "metrics.address", "address and port"),
        (
            &[("127.0.0.1:9910", "localhost:9910")],
            "sync.domains[0].metrics.address",
            "for example \"127.0.0.1:9909\"",
        ),
        (&[("127.0.0.1:9909", "127.0.0.1:0")], "metrics.address", "1..=65535"),
    ];
    for (changes, field, part) in rules {
        let found = problem(changes);
        assert_eq!(found.field, *field, "{found}");
        assert!(found.to_string().contains(part), "{found} does not contain {part:?}");
    }
}

#[test]
fn a_tap_carries_no_more_queues_than_dpdk_hands_over() {
    let more = r#"
        (lcore: 3, cpu: 2, local_addresses: ["198.51.100.3", "2001:db8:4:1::3"]),
        (lcore: 4, cpu: 2, local_addresses: ["198.51.100.4", "2001:db8:4:1::4"]),
    ],

    // Sizes"#;
    let five = [("\n    ],\n\n    // Sizes", more)];
    assert_eq!(problem(&five).field, "workers");
    let software = [five[0], ("steering: Auto", "steering: Software")];
    assert!(Config::parse(&changed(&software), "x").is_ok());
}

#[test]
fn limits_on_lists_hold() {
    let peers: String = (2..=66).map(|n| format!("(node: {n}, addresses: [\"10.0.0.{n}\"]),")).collect();
    let text =
        changed(&[("peers: [\n", &format!("peers: [{peers}\n"))]).replacen("node: 2,\n", "node: 99,\n", 1);
    let error = Config::parse(&text, "x").unwrap_err();
    assert_eq!(error.problems().len(), 1, "{error}");
    assert_eq!(error.problems()[0].found, "66 peers");
}

#[test]
fn each_process_has_a_metrics_address_of_its_own() {
    let problem = problem(&[("127.0.0.1:9910", "127.0.0.1:9909")]);
    assert!(problem.field.ends_with("metrics.address"), "{problem}");
    assert!(problem.found.starts_with("127.0.0.1:9909, which is "), "{problem}");
}
