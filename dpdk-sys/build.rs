//! Finds the system's libdpdk, generates its bindings and compiles the shim for its static inline functions.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The release that Baton is tested with; `dpdk::shared_config` relies on offsets inside it.
const TESTED_RELEASE: &str = "22.11";

/// Libraries whose functions are bound. The drivers load themselves from DPDK's plugin directory.
const LIBRARIES: [&str; 7] =
    ["rte_ethdev", "rte_hash", "rte_net", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal"];

/// Types with a layout that Rust cannot express (packed types that hold aligned ones).
const OPAQUE_TYPES: [&str; 4] =
    ["rte_arp_ipv4", "rte_arp_hdr", "rte_gtp_psc_generic_hdr", "rte_l2tpv2_combined_msg_hdr"];

/// Functions, types and constants that are bound; regular expressions.
const FUNCTIONS: [&str; 10] = [
    "baton_.*",
    "rte_eal_(init|wait_lcore|remote_launch|get_lcore_state|process_type)",
    "rte_(strerror|service_finalize|version_year|version_month|version_minor|version)",
    "rte_(lcore_is_enabled|get_main_lcore|lcore_to_socket_id)",
    "rte_pktmbuf_(pool_create_by_ops|free_bulk)",
    "rte_mempool_(lookup|avail_count|in_use_count|obj_iter)|rte_free",
    "rte_ring_(create|free)",
    "rte_hash_(create|free|count|add_key_data|del_key|free_key_with_position|lookup_data|lookup_bulk_data)",
    "rte_eth_(dev_get_port_by_name|dev_info_get|dev_configure|dev_set_mtu|dev_get_mtu|dev_start|dev_stop|\
     dev_adjust_nb_rx_tx_desc|rx_queue_setup|tx_queue_setup|promiscuous_enable|macaddr_get|link_get_nowait|\
     stats_get|xstats_get|xstats_get_names|dev_socket_id)",
    "rte_flow_(create|destroy|flush)|rte_mcfg_(mem|tailq|mempool)_(read|write)_(lock|unlock)|rte_mcfg_timer_(lock|unlock)",
];
const TYPES: [&str; 2] = ["rte_flow_item_(eth|ipv4|ipv6|udp)", "rte_flow_action_(queue|rss)"];
const CONSTANTS: [&str; 5] = [
    "rte_eth_fp_ops",
    "RTE_(MAX_LCORE|MAX_ETHPORTS|MAX_QUEUES_PER_PORT)",
    "RING_F_(SP_ENQ|SC_DEQ)",
    "RTE_PKTMBUF_HEADROOM",
    "RTE_HASH_(EXTRA_FLAGS_RW_CONCURRENCY_LF|LOOKUP_BULK_MAX)",
];

fn main() {
    for path in ["build.rs", "src/shim.c", "src/shim.h"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-env-changed=PKG_CONFIG");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");

    let library = find_libdpdk();
    let flags = compiler_flags();
    compile_shim(&flags);
    link(&library);
    generate_bindings(&flags, &library.version);
}

/// Asks pkg-config for libdpdk; ends the build if there is none or an untested one.
fn find_libdpdk() -> pkg_config::Library {
    let library = match pkg_config::Config::new().cargo_metadata(false).probe("libdpdk") {
        Ok(library) => library,
        Err(pkg_config::Error::Command { cause, .. }) => {
            fail(&format!("cannot run pkg-config: {cause}; install it"))
        }
        Err(_) => fail(&format!("libdpdk not found: install libdpdk-dev (tested with {TESTED_RELEASE}.x)")),
    };
    let version = &library.version;
    if version != TESTED_RELEASE && !version.starts_with(&format!("{TESTED_RELEASE}.")) {
        fail(&format!(
            "libdpdk {version} found, but Baton is tested with {TESTED_RELEASE}.x only: install libdpdk-dev \
             {TESTED_RELEASE} (Debian 12 has it), or set PKG_CONFIG_PATH to where it is"
        ));
    }
    library
}

/// All the compiler flags of libdpdk: the `pkg-config` crate keeps neither `-include` nor `-march`.
fn compiler_flags() -> Vec<String> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = match Command::new(&program).args(["--cflags", "libdpdk"]).output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            fail(&format!("pkg-config --cflags libdpdk: {}", String::from_utf8_lossy(&output.stderr)))
        }
        Err(error) => fail(&format!("cannot run {}: {error}", program.to_string_lossy())),
    };
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

/// Compiles the C functions that stand for libdpdk's static inline ones.
fn compile_shim(flags: &[String]) {
    let mut build = cc::Build::new();
    build.file("src/shim.c").opt_level(3).flag("-mssse3").warnings(true);
    for flag in flags {
        build.flag(flag);
    }
    build.compile("baton_dpdk_shim");
}

/// Links the shared libraries; after the shim, which refers to them.
fn link(library: &pkg_config::Library) {
    for path in &library.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    for name in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
}

/// Writes `bindings.rs`.
fn generate_bindings(flags: &[String], version: &str) {
    let mut builder = bindgen::Builder::default()
        .header("src/shim.h")
        .clang_args(flags)
        .clang_arg("-mssse3")
        .rust_edition(bindgen::RustEdition::Edition2024)
        .generate_comments(false)
        .derive_default(true)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .layout_tests(false);
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(name);
    }
    for name in OPAQUE_TYPES {
        builder = builder.opaque_type(name);
    }
    let path = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(error) => fail(&format!(
            "no bindings for libdpdk {version}: {error} (are clang and libclang-dev installed?)"
        )),
    };
    if let Err(error) = bindings.write_to_file(&path) {
        fail(&format!("cannot write {}: {error}", path.display()));
    }
}

/// Ends the build with a message. Cargo shows it and fails; after a failure status it would show all the output too.
fn fail(message: &str) -> ! {
    println!("cargo::error={}", message.replace('\n', " "));
    std::process::exit(0);
}
