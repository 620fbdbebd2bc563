use super::*;
use crate::machine::fake;
use baton_common::config::SAMPLE;
use baton_common::id::NumaId;

fn config() -> Config {
    Config::parse(SAMPLE, "sample").unwrap()
}

/// A plan on a machine with these NUMA nodes (total, free, available), so many pages promised, this mount, all files absent.
fn plan(
    config: &Config,
    nodes: &[(u64, u64, u64)],
    promised: u64,
    mount: MountState,
) -> Result<Plan, PlanError> {
    let sys = tempfile::tempdir().unwrap();
    let pages = fake::machine(sys.path(), nodes, promised).pages().unwrap();
    let need = Need::of(config);
    let actions = vec![FileAction::Create; need.files.len()];
    decide(config, need, Facts { pages, mount, actions, dpdk_pages: 0 })
}

fn needed() -> u64 {
    Need::of(&config()).pages()
}

#[test]
fn an_empty_machine_gets_all_pages_a_mount_and_all_files() {
    let plan = plan(&config(), &[(0, 0, 10_000)], 0, MountState::Absent).unwrap();
    assert!(plan.mount && !plan.is_done());
    assert_eq!((plan.numa[0].add, plan.pages), (needed(), needed()));
    assert_eq!(plan.files.len(), 10);
    assert!(plan.files.iter().all(|file| file.action == FileAction::Create));
}

#[test]
fn free_pages_are_used_unless_they_are_promised_to_others() {
    let add = |free, promised| {
        plan(&config(), &[(900, free, 10_000)], promised, MountState::Absent).unwrap().numa[0].add
    };
    assert_eq!(add(needed(), 0), 0);
    assert_eq!(add(30, 0), needed() - 30);
    assert_eq!(add(30, 20), needed() - 10);
    assert_eq!(add(30, 40), needed());
}

#[test]
fn each_numa_node_gets_its_own() {
    let mut config = config();
    config.workers[1].numa = NumaId(1);
    let plan = plan(&config, &[(64, 64, 10_000), (0, 0, 10_000)], 0, MountState::Absent).unwrap();
    let need = Need::of(&config);
    assert_eq!(plan.numa[0].add, need.nodes[&0].pages() - 64);
    assert_eq!(plan.numa[1].add, need.nodes[&1].pages());
}

#[test]
fn a_mount_with_promised_pages_needs_no_more() {
    let mount = MountState::Hugetlbfs { size_pages: Some(needed()), promised_pages: needed() };
    let plan = plan(&config(), &[(needed(), needed(), 0)], needed(), mount).unwrap();
    assert_eq!((plan.mount, plan.numa[0].add), (false, 0));
}

#[test]
fn in_a_mount_without_a_promise_what_files_hold_need_not_be_free() {
    let sys = tempfile::tempdir().unwrap();
    let need = Need::of(&config());
    let pages = fake::machine(sys.path(), &[(needed(), 28, 10_000)], 0).pages().unwrap();
    let actions = vec![FileAction::Keep; need.files.len()];
    let mount = MountState::Hugetlbfs { size_pages: None, promised_pages: 0 };
    let plan = decide(&config(), need, Facts { pages, mount, actions, dpdk_pages: 100 }).unwrap();
    assert_eq!(plan.numa[0].add, 0);
    assert!(plan.is_done());
}

#[test]
fn too_little_memory_is_told_with_numbers() {
    let error = plan(&config(), &[(0, 0, 100)], 0, MountState::Absent).unwrap_err();
    let expected =
        format!("the missing {} take {} MiB, and 200 MiB of memory are available", needed(), needed() * 2);
    assert!(error.to_string().contains(&expected), "{error}");
}

#[test]
fn a_numa_node_that_is_not_there_is_named() {
    let mut config = config();
    config.workers[1].numa = NumaId(3);
    let error = plan(&config, &[(0, 0, 10_000)], 0, MountState::Absent).unwrap_err();
    assert!(error.to_string().contains("uses NUMA node 3, this machine has [0]"), "{error}");
}

#[test]
fn something_else_at_the_mounts_place_is_named() {
    let mount = MountState::Foreign { what: "a mounted tmpfs".to_owned() };
    let error = plan(&config(), &[(0, 0, 10_000)], 0, mount).unwrap_err();
    assert!(
        error.to_string().starts_with("/run/baton-hugepages is a mounted tmpfs, expected a hugetlbfs"),
        "{error}"
    );
}

#[test]
fn a_mount_that_became_too_small_is_named() {
    let mount = MountState::Hugetlbfs { size_pages: Some(5), promised_pages: 5 };
    let error = plan(&config(), &[(5, 5, 10_000)], 5, mount).unwrap_err();
    assert!(
        error.to_string().contains(&format!("holds 5 pages, the configuration needs {}", needed())),
        "{error}"
    );
}

fn local_table(config: &Config) -> TableFile {
    Need::of(config).files[0]
}

#[test]
fn a_file_of_the_same_geometry_stays_and_of_another_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config();
    config.tables.local_sessions = 1000;
    let file = local_table(&config);
    assert_eq!(examine(&file, directory.path()).unwrap(), FileAction::Create);
    Region::create(&file.path(directory.path()), &file.spec).unwrap();
    assert_eq!(examine(&file, directory.path()).unwrap(), FileAction::Keep);
    config.tables.local_sessions = 2000;
    let error = examine(&local_table(&config), directory.path()).unwrap_err().to_string();
    assert!(
        error.contains("local-0 was made for 1000 sessions, the configuration says 2000 sessions"),
        "{error}"
    );
    assert!(error.contains("`baton-hugepages remove`"), "{error}");
}

#[test]
fn a_file_of_another_layout_is_made_anew_and_one_of_somebody_else_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let file = local_table(&config());
    let path = file.path(directory.path());
    Region::create(&path, &file.spec).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(4096);
    bytes[8] ^= 0x80;
    std::fs::write(&path, &bytes).unwrap();
    let action = examine(&file, directory.path()).unwrap();
    assert!(
        matches!(&action, FileAction::Remake { reason } if reason.contains("layout version")),
        "{action:?}"
    );
    bytes[0] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = format!("{:#}", anyhow::Error::from(examine(&file, directory.path()).unwrap_err()));
    assert!(error.contains("not a file of Baton's"), "{error}");
}

#[test]
fn the_text_names_pages_files_and_what_apply_does() {
    let plan = plan(&config(), &[(0, 0, 10_000)], 0, MountState::Absent).unwrap();
    let text = plan.text();
    for part in [
        "lb1: needs",
        "apply adds",
        "apply mounts a hugetlbfs at /run/baton-hugepages",
        "local-0",
        "apply creates it",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
