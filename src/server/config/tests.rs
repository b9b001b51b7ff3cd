use super::*;

fn settings(text: &str) -> Result<Settings, toml::de::Error> {
    toml::from_str(text)
}

fn resolved(text: &str) -> Result<ServerConfig, String> {
    settings(text).unwrap().resolve().map_err(|error| error.to_string())
}

#[test]
fn the_data_directory_is_all_that_is_needed() {
    let config = resolved("data = '/d'").unwrap();
    assert_eq!(config.node.name.as_str(), "127.0.0.1-7400");
    assert_eq!(config.node.addresses, [ADDRESS_DEFAULT.parse().unwrap()]);
    assert_eq!((config.node.found, config.node.replicas.get()), (None, 3));
    assert_eq!(config.cluster, CLUSTER_DEFAULT);
    assert!(!config.faults && config.credentials.is_none() && config.advertise.is_empty());
}

#[test]
fn every_name_of_a_file_reaches_its_place() {
    let config = resolved(
        r#"
        data = "/d"
        listen = "0.0.0.0:1"
        advertise = ["127.0.0.1:2", "127.0.0.2:2"]
        seeds = ["127.0.0.1:3"]
        found = 3
        name = "a"
        zone = "z"
        weight = 2
        cluster = "c"
        replicas = 5
        faults = true
        ca = "/ca"
        cert = "/cert"
        key = "/key"
        [log]
        format = "json"
        level = "debug"
        [disk]
        segment_bytes = 1048576
        checkpoint_bytes = 2
        checkpoint_interval_ms = 3
        backlog_bytes_max = 4
        free_space_floor_bytes = 5
        cache_bytes = 6
        compact_percent = 7
        compact_floor_bytes = 8
        compact_bytes_per_second = 9
        scrub_bytes_per_second = 10
        [limits]
        key_bytes_max = 1
        value_bytes_max = 2
        record_bytes_max = 3000
        siblings_max = 4
        context_entries_max = 17
        [membership]
        period_ms = 1
        observers = 2
        silence_max_ms = 3
        suspicion_ms = 4
        book_max = 5
        [replication]
        requests_max = 1
        resend_after_ms = 2
        hedge_min_ms = 3
        [exchange]
        cycle_ms = 1
        keys_per_second = 2
        bytes_per_second = 3
        [hints]
        bytes_max = 4
        bytes_per_target_max = 3
        replay_every_ms = 2
        replay_batch = 1
        "#,
    )
    .unwrap();
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(config.listen, address("0.0.0.0:1"));
    assert_eq!(config.node.addresses, [address("127.0.0.1:2"), address("127.0.0.2:2")]);
    assert_eq!(config.node.seeds, [address("127.0.0.1:3")]);
    assert_eq!((config.node.found, config.node.replicas.get()), (Some(3), 5));
    assert_eq!((config.node.zone.as_str(), config.node.weight.get()), ("z", 2));
    assert_eq!((config.cluster.as_str(), config.faults), ("c", true));
    assert_eq!(config.credentials.unwrap().certificate, PathBuf::from("/cert"));
    assert_eq!(config.log, LogConfig { format: LogFormat::Json, level: "debug".to_owned() });
    assert_eq!((config.disk.segment_bytes, config.disk.cache_bytes), (1 << 20, 6));
    assert_eq!((config.disk.checkpoint_bytes, config.disk.backlog_bytes_max), (2, 4));
    assert_eq!(config.disk.checkpoint_interval, Duration::from_millis(3));
    assert_eq!(config.disk.free_space_floor, 5);
    assert_eq!((config.disk.compact_percent, config.disk.compact_floor_bytes), (7, 8));
    assert_eq!((config.disk.compact_bytes_per_second, config.disk.scrub_bytes_per_second), (9, 10));
    let limits = config.node.limits;
    assert_eq!((limits.key_bytes_max, limits.value_bytes_max, limits.record_bytes_max), (1, 2, 3_000));
    assert_eq!((limits.siblings_max, limits.context_entries_max), (4, 17));
    let membership = config.node.membership;
    assert_eq!((membership.period, membership.observers), (Duration::from_millis(1), 2));
    assert_eq!((membership.silence_max, membership.book_max), (Duration::from_millis(3), 5));
    assert_eq!(membership.suspicion, Duration::from_millis(4));
    let replication = config.node.replication;
    assert_eq!((replication.requests_max, replication.hedge_min), (1, Duration::from_millis(3)));
    assert_eq!(replication.resend_after, Duration::from_millis(2));
    let exchange = config.node.exchange;
    assert_eq!((exchange.keys_per_second, exchange.bytes_per_second), (2, 3));
    assert_eq!(exchange.cycle, Duration::from_millis(1));
    let hints = config.node.hints;
    assert_eq!((hints.bytes_max, hints.bytes_per_target_max), (4, 3));
    assert_eq!((hints.replay_every, hints.replay_batch), (Duration::from_millis(2), 1));
}

#[test]
fn an_unknown_name_is_told_with_its_line_and_the_known_ones() {
    let error = settings("data = '/d'\nreplica = 3\n").unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("unknown field `replica`"), "{error}");
    assert!(error.contains("`replicas`") && error.contains("`found`"), "{error}");
    let nested = settings("[limits]\nkey_max = 1").unwrap_err().to_string();
    assert!(nested.contains("key_max") && nested.contains("`key_bytes_max`"), "{nested}");
    assert!(settings("[log]\nformat = 'xml'").unwrap_err().to_string().contains("`json`"));
}

#[test]
fn flags_win_over_the_file() {
    let flags = Settings { name: Some("flag".to_owned()), weight: Some(3), ..Settings::default() };
    let file = settings("name = 'file'\nzone = 'z'\n[log]\nlevel = 'warn'").unwrap();
    let both = flags.or(file);
    assert_eq!((both.name.as_deref(), both.zone.as_deref(), both.weight), (Some("flag"), Some("z"), Some(3)));
    assert_eq!(both.log.level.as_deref(), Some("warn"));
}

#[test]
fn settings_without_sense_are_refused_and_say_why() {
    for (text, reason) in [
        ("", "--data DIR"),
        ("data='/d'\nlisten='nowhere'", "no HOST:PORT"),
        ("data='/d'\nlisten='0.0.0.0:1'", "--advertise"),
        ("data='/d'\nseeds=['127.0.0.1']", "seeds"),
        ("data='/d'\nfound=0", "at least one"),
        ("data='/d'\n[exchange]\nkeys_per_second=0", "at least 1"),
        ("data='/d'\n[hints]\nreplay_batch=0", "at least 1"),
        ("data='/d'\n[hints]\nbytes_max=5\nbytes_per_target_max=6", "at most bytes_max"),
        ("data='/d'\nname='a b'", "no name for a node"),
        ("data='/d'\nlisten='127.0.0.1:0'", "--name"),
        ("data='/d'\nzone=''", "zone"),
        ("data='/d'\nweight=0", "weight"),
        ("data='/d'\nreplicas=9", "choose 1 to 7"),
        ("data='/d'\nca='/ca'", "go together"),
        ("data='/d'\n[membership]\nperiod_ms=0", "at least 1"),
        ("data='/d'\n[disk]\nsegment_bytes=1", "65536"),
        ("data='/d'\n[disk]\ncompact_bytes_per_second=0", "compact_percent = 0"),
        ("data='/d'\n[membership]\nsilence_max_ms=999", "at least period_ms = 1000"),
        ("data='/d'\n[replication]\nrequests_max=0", "at least 1"),
        ("data='/d'\n[replication]\nresend_after_ms=0", "at least 1"),
        ("data='/d'\n[limits]\nkey_bytes_max=0", "at least 1"),
        ("data='/d'\n[limits]\nsiblings_max=0", "at least 1"),
        ("data='/d'\n[limits]\ncontext_entries_max=15", "at least 16"),
        ("data='/d'\n[limits]\nrecord_bytes_max=3000", "one value of value_bytes_max = 1048576 has to fit"),
    ] {
        let error = resolved(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Settings::load(Path::new("/nonexistent/node.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/node.toml"), "{error}");
}
