use super::*;

fn rules() -> Rules {
    Rules {
        bridge: "ch0123456789ab".to_owned(),
        gateways: ["fd00::1", "10.213.0.1"].map(|gateway| gateway.parse().unwrap()).to_vec(),
        meet: false,
        egress: Egress::Open,
        host_ports: Vec::new(),
        resolver: false,
    }
}

#[test]
fn every_rule_is_in_our_table_and_for_our_bridge() {
    let script = Rules { host_ports: vec![8080, 443], ..rules() }.script(61_234);
    for line in script.lines() {
        assert!(line.contains(" inet corehold"), "{line}");
    }
    assert!(script.contains("host_ch0123456789ab tcp dport { 8080, 443 } accept\n"), "{script}");
    assert!(script.contains("to_host { \"ch0123456789ab\" : jump host_ch0123456789ab }"), "{script}");
    assert!(script.contains("gateways { 10.213.0.1 : jump mark_ch0123456789ab }"), "{script}");
    for line in rules().between().lines() {
        assert!(line.contains(" bridge corehold"), "{line}");
    }
    assert!(!script.contains("delete") && !script.contains("flush ruleset") && !script.contains("flush table"));
}

#[test]
fn what_is_not_let_in_is_refused_last_and_members_meet_only_where_they_may() {
    let of = |rules: &Rules, chain: &str| -> Vec<String> {
        rules.rules().into_iter().filter(|(name, _)| *name == chain).map(|(_, rule)| rule).collect()
    };
    assert_eq!(of(&rules(), "host").last().unwrap(), REFUSE);
    assert_eq!(of(&rules(), "others")[0], format!("oifname \"ch0123456789ab\" {REFUSE}"));
    assert_eq!(of(&Rules { meet: true, ..rules() }, "others")[0], "oifname \"ch0123456789ab\" accept");
}

/// What is open is known to the kernel before any rule of a network is asked: it stays open when rules become stricter.
#[test]
fn what_was_let_through_before_stays_open() {
    let script = Rules { egress: Egress::None, ..rules() }.script(61_234);
    for chain in ["input", "forward"] {
        let rules: Vec<_> =
            script.lines().filter_map(|line| line.split_once(&format!("add rule inet corehold {chain} "))).collect();
        assert_eq!(rules[0].1, "ct state established,related accept", "{chain}");
        assert!(rules[1].1.starts_with("iifname vmap"), "{chain}");
    }
}

#[test]
fn a_resolver_at_the_gateway_is_asked_for_names_alone() {
    let rules = Rules { resolver: true, ..rules() };
    let host: Vec<_> = rules.rules().into_iter().filter(|(chain, _)| *chain == "host").map(|(_, rule)| rule).collect();
    assert_eq!(host[0], "ip6 daddr fd00::1 meta l4proto { tcp, udp } th dport 53 accept");
    assert_eq!(host[1], "ip daddr 10.213.0.1 meta l4proto { tcp, udp } th dport 53 accept");
    assert_eq!(host.last().unwrap(), REFUSE);
}

#[test]
fn members_are_kept_apart_on_the_bridge_too_unless_they_may_meet() {
    let drops = |rules: &Rules| rules.between().lines().any(|line| line.ends_with("between_ch0123456789ab drop"));
    assert!(drops(&rules()));
    let meet = Rules { meet: true, ..rules() };
    assert!(!drops(&meet) && meet.between().contains("flush chain bridge corehold between_ch0123456789ab"));
}

#[test]
fn an_egress_refuses_what_it_does_not_name() {
    let others = |egress: Egress| -> Vec<String> {
        let rules = Rules { egress, ..rules() }.rules();
        rules.into_iter().filter(|(name, _)| *name == "others").map(|(_, rule)| rule).collect()
    };
    let open = others(Egress::Open);
    assert!(open.last().unwrap().starts_with("ip6 daddr { fe80::/10"), "{open:?}");
    let none = others(Egress::None);
    assert_eq!(none.last().unwrap(), REFUSE);
    assert!(!none.iter().any(|rule| rule.contains("accept")), "not even names: {none:?}");
    let internet = others(Egress::Internet);
    assert!(internet.iter().any(|rule| rule.contains("10.0.0.0/8") && rule.contains(REFUSE)), "{internet:?}");
    let named = ["10.1.0.0/16:443", "2001:db8::/32"].map(|text| text.parse().unwrap());
    let only = others(Egress::Only(named.to_vec()));
    let end = &only[only.len() - 3..];
    let tcp = "ip daddr 10.1.0.0/16 meta l4proto { tcp, udp } th dport 443 accept";
    assert_eq!(end, [tcp, "ip6 daddr 2001:db8::/32 accept", REFUSE]);
    for egress in [Egress::Open, Egress::Internet, Egress::None, Egress::Only(named.to_vec())] {
        let rules = others(egress);
        assert!(rules[0].contains("oifname \"ch") && rules[1].contains("@bridges") && rules[2].contains("oifkind"));
    }
}

#[test]
fn a_mark_is_of_its_rules() {
    let mark = rules().mark();
    assert!(MARKS.contains(&mark), "{mark}");
    assert_eq!(mark, rules().mark());
    assert_ne!(mark, Rules { host_ports: vec![1], ..rules() }.mark());
    assert_ne!(mark, Rules { meet: true, ..rules() }.mark());
    assert_ne!(mark, Rules { resolver: true, ..rules() }.mark());
}

#[test]
fn a_bridge_whose_name_would_be_read_as_more_is_refused() {
    for bridge in ["", "a b", "x\"; flush ruleset; add x \"", "a{", "sixteen-letters!", "0123456789abcdef"] {
        let error = Rules { bridge: bridge.to_owned(), ..rules() }.check("n").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{bridge}");
    }
    assert!(rules().check("n").is_ok());
}

#[test]
fn why_it_can_not_be_closed_is_told() {
    let error = |code, output: &str| refused("x", &Ended { code, output: output.to_owned() });
    assert!(error(127, "nft: command not found").to_string().contains("image build"));
    let denied = error(1, "Error: Could not process rule: Operation not permitted");
    assert!(denied.to_string().contains("no say"), "{denied}");
    assert_eq!(denied.kind(), ErrorKind::Unsupported);
    assert!(denied.hint_text().unwrap().contains("host_may_be_reached"));
}

/// What nft is told besides the rules on a machine with this `resolv.conf`, with another program in nft's place.
fn resolvers(resolv_conf: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let (file, nft) = (folder.path().join("resolv.conf"), folder.path().join("nft"));
    std::fs::write(&file, resolv_conf).unwrap();
    std::fs::write(&nft, "#!/bin/sh\n[ \"$1\" = -f ] && exec cat\n[ \"$1\" = -c ]\n").unwrap();
    std::fs::set_permissions(&nft, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut set = std::process::Command::new("bash");
    let set = set.args(["-c", r#"export PATH="$0:$PATH"; exec bash -c "$@""#]).arg(folder.path());
    let set = set.args([SET, "helper", "rules", "10.213.0.1", "between"]).arg(&file);
    let ended = set.output().unwrap();
    let (said, complaints) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    assert!(ended.status.success() && complaints.is_empty(), "{said}{complaints}");
    assert!(said.starts_with("rules\nbetween\n"), "{said}");
    let added = said.lines().filter_map(|line| line.strip_prefix("add element inet corehold resolvers"));
    added.map(ToOwned::to_owned).collect()
}

#[test]
fn a_machines_resolvers_are_asked_at_their_own_addresses_and_no_others() {
    let none: [&str; 0] = [];
    // As systemd-resolved leaves it, and others that answer on the loopback, or none at all.
    for nowhere in [
        "",
        "# nameserver 10.0.0.53\n;nameserver 10.0.0.53\nsearch lan\nnameserver\n",
        "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
        "nameserver 127.0.0.1\nnameserver ::1\n",
        "nameserver ::1",
        "nameserver 0.0.0.0\nnameserver ::\n",
        // What would be all addresses, or more than an address.
        "nameserver 0.0.0.0/0\nnameserver ::/0\nnameserver 10.0.0.0/8\nnameserver 10.0.0.1-10.0.0.9\n",
        "nameserver 10.0.0.1,0.0.0.0/0\nnameserver }\nnameserver resolver.lan\n",
        // Of one interface of the machine's.
        "nameserver fe80::1%eth0\n",
    ] {
        assert_eq!(resolvers(nowhere), none, "{nowhere:?}");
    }
    let named = "nameserver 127.0.0.53\n\tnameserver  10.0.0.53 # ours\nnameserver 2001:db8::53\nnameserver 169.254.169.253\nnameserver fd00:ec2::253\nnameserver 1.1.1.1/0\n";
    let asked = [" { 10.0.0.53 }", "6 { 2001:db8::53 }", " { 169.254.169.253 }", "6 { fd00:ec2::253 }"];
    assert_eq!(resolvers(named), asked);
}

#[test]
fn nothing_but_asking_a_named_resolver_comes_before_metadata_is_refused() {
    let named = vec!["0.0.0.0/0".parse().unwrap(), "169.254.169.254:80".parse().unwrap()];
    for egress in [Egress::Open, Egress::Internet, Egress::Only(named)] {
        let rules = Rules { egress: egress.clone(), ..rules() }.rules();
        let others: Vec<_> =
            rules.iter().filter(|(chain, _)| *chain == "others").map(|(_, rule)| rule.as_str()).collect();
        let at = |start: &str| others.iter().position(|rule| rule.starts_with(start)).unwrap();
        let (four, six) = (at("ip daddr { 169.254.0.0/16"), at("ip6 daddr { fe80::/10"));
        assert!(
            others[four].contains("100.100.100.200, 168.63.129.16, 192.0.0.192 }") && others[four].ends_with(REFUSE)
        );
        assert!(others[six].contains("fd00:ec2::254 }") && others[six].ends_with(REFUSE));
        let before: Vec<_> = others[..four.max(six)].iter().filter(|rule| rule.ends_with("accept")).collect();
        let asked = ["ip daddr @resolvers", "ip6 daddr @resolvers6"]
            .map(|whom| format!("meta l4proto {{ tcp, udp }} th dport 53 {whom} accept"));
        assert_eq!(before, asked.each_ref().map(String::as_str).iter().collect::<Vec<_>>(), "{egress:?}");
    }
}
