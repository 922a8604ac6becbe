//! The redirection as nf_tables has it: what [`super::ruleset`] writes as text, in the kernel's own words.
//!
//! One transaction replaces the table. A rule is a list of expressions that load something into a register, compare it
//! and give a verdict; a set of ranges is a list of where one begins and where it has ended.

use std::io;

use super::netlink::{self, Attributes, Batch, Refused};
use super::ruleset::Rules;

const TABLE: &str = "weir";

/// Attributes of `linux/netfilter/nf_tables.h`.
mod attribute {
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    pub(super) const RULE_TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const LIST_ITEM: u16 = 1;
    pub(super) const EXPRESSION_NAME: u16 = 1;
    pub(super) const EXPRESSION_DATA: u16 = 2;
    pub(super) const SET_TABLE: u16 = 1;
    pub(super) const SET_NAME: u16 = 2;
    pub(super) const SET_FLAGS: u16 = 3;
    pub(super) const SET_KEY_TYPE: u16 = 4;
    pub(super) const SET_KEY_LENGTH: u16 = 5;
    pub(super) const SET_ID: u16 = 10;
    pub(super) const ITEMS_TABLE: u16 = 1;
    pub(super) const ITEMS_SET: u16 = 2;
    pub(super) const ITEMS: u16 = 3;
    pub(super) const ITEM_KEY: u16 = 1;
    pub(super) const ITEM_FLAGS: u16 = 3;
    pub(super) const DATA_VALUE: u16 = 1;
    pub(super) const DATA_VERDICT: u16 = 2;
    pub(super) const VERDICT_CODE: u16 = 1;
    pub(super) const META_TO: u16 = 1;
    pub(super) const META_KEY: u16 = 2;
    pub(super) const COMPARE_REGISTER: u16 = 1;
    pub(super) const COMPARE_HOW: u16 = 2;
    pub(super) const COMPARE_WITH: u16 = 3;
    pub(super) const PAYLOAD_TO: u16 = 1;
    pub(super) const PAYLOAD_BASE: u16 = 2;
    pub(super) const PAYLOAD_OFFSET: u16 = 3;
    pub(super) const PAYLOAD_LENGTH: u16 = 4;
    pub(super) const LOOKUP_SET: u16 = 1;
    pub(super) const LOOKUP_REGISTER: u16 = 2;
    pub(super) const IMMEDIATE_TO: u16 = 1;
    pub(super) const IMMEDIATE_DATA: u16 = 2;
    pub(super) const REDIRECT_PORT_MIN: u16 = 1;
    pub(super) const REDIRECT_FLAGS: u16 = 3;
}
use attribute as a;

/// `dstnat` by its number.
const PRIORITY: i32 = -100;
const REGISTER: u32 = libc::NFT_REG_1 as u32;
/// A port is given: `NF_NAT_RANGE_PROTO_SPECIFIED`.
const WITH_PORT: u32 = 2;
/// So many items fit into one message, whose length has 16 bits.
const ITEMS_A_MESSAGE: usize = 500;

/// The kinds of keys as nft numbers them: the kernel keeps the number for whoever lists the table.
#[derive(Clone, Copy)]
enum Key {
    Port,
    V4,
    V6,
}

struct Set {
    name: &'static str,
    key: Key,
    /// First and last of each range, sorted and apart from one another.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Replaces whatever an earlier run installed, in the network namespace of the calling thread.
pub(super) fn install(rules: &Rules) -> Result<(), Refused> {
    let mut batch = Batch::default();
    remove_first(&mut batch);
    batch.push(
        "table inet weir",
        libc::NFT_MSG_NEWTABLE,
        libc::NLM_F_CREATE,
        &table(),
    );
    for (number, set) in sets(rules).iter().enumerate() {
        let what = format!("set {}", set.name);
        batch.push(
            &what,
            libc::NFT_MSG_NEWSET,
            libc::NLM_F_CREATE,
            &set.definition(number as u32 + 1),
        );
        for items in set.items().chunks(ITEMS_A_MESSAGE) {
            let flags = libc::NLM_F_CREATE;
            batch.push(&what, libc::NFT_MSG_NEWSETELEM, flags, &set.message(items));
        }
    }
    for (name, hook, rules) in chains(rules) {
        let chain = chain(name, hook);
        batch.push(
            &format!("chain {name}"),
            libc::NFT_MSG_NEWCHAIN,
            libc::NLM_F_CREATE,
            &chain,
        );
        for (number, rule) in rules.iter().enumerate() {
            let said = Attributes::default()
                .text(a::RULE_TABLE, TABLE)
                .text(a::RULE_CHAIN, name)
                .nested(a::RULE_EXPRESSIONS, rule);
            let what = format!("rule {} of chain {name}", number + 1);
            batch.push(
                &what,
                libc::NFT_MSG_NEWRULE,
                libc::NLM_F_CREATE | libc::NLM_F_APPEND,
                &said,
            );
        }
    }
    batch.send()
}

/// Leaves no trace, whether or not the table was there.
pub(super) fn remove() -> Result<(), Refused> {
    let mut batch = Batch::default();
    remove_first(&mut batch);
    batch.send()
}

/// What holds in the network namespace of the calling thread: rules and items of sets, in the kernel's words. Two
/// namespaces in which the same was installed show the same.
pub(super) fn shown() -> io::Result<Vec<Vec<u8>>> {
    let mut shown = Vec::new();
    let rules = netlink::list(
        libc::NFT_MSG_GETRULE,
        &Attributes::default().text(a::RULE_TABLE, TABLE),
    );
    for rule in or_nothing(rules)? {
        let wanted = [a::RULE_TABLE, a::RULE_CHAIN, a::RULE_EXPRESSIONS];
        let parts = netlink::read(&rule).into_iter();
        let parts: Vec<_> = parts.filter(|(kind, _)| wanted.contains(kind)).collect();
        // Not every kernel filters by table.
        if parts.first().is_some_and(|(_, table)| *table == b"weir\0") {
            shown.push(parts.iter().flat_map(|(_, value)| value.to_vec()).collect());
        }
    }
    for set in ["skip_in", "skip_out", "skip_cidr", "skip_cidr6"] {
        let asked = Attributes::default()
            .text(a::ITEMS_TABLE, TABLE)
            .text(a::ITEMS_SET, set);
        for found in or_nothing(netlink::list(libc::NFT_MSG_GETSETELEM, &asked))? {
            let items = netlink::read(&found)
                .into_iter()
                .filter(|(kind, _)| *kind == a::ITEMS);
            shown.extend(items.map(|(_, items)| [set.as_bytes(), items].concat()));
        }
    }
    Ok(shown)
}

/// A table that is not there has nothing in it.
fn or_nothing(listed: io::Result<Vec<Vec<u8>>>) -> io::Result<Vec<Vec<u8>>> {
    match listed {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        listed => listed,
    }
}

/// Adding a table that exists is no error, and deleting one that does not is.
fn remove_first(batch: &mut Batch) {
    batch.push(
        "table inet weir",
        libc::NFT_MSG_NEWTABLE,
        libc::NLM_F_CREATE,
        &table(),
    );
    batch.push("the table of before", libc::NFT_MSG_DELTABLE, 0, &table());
}

fn table() -> Attributes {
    Attributes::default().text(a::TABLE_NAME, TABLE)
}

fn sets(rules: &Rules) -> [Set; 4] {
    let ports = |name, ports: &super::PortSet| Set {
        name,
        key: Key::Port,
        ranges: ports
            .ranges()
            .map(|(first, last)| (first.to_be_bytes().into(), last.to_be_bytes().into()))
            .collect(),
    };
    let networks = |name, key, is_v4| Set {
        name,
        key,
        ranges: rules.skip_outbound_cidrs.ranges(is_v4),
    };
    [
        ports("skip_in", &rules.skip_inbound_ports),
        ports("skip_out", &rules.skip_outbound_ports),
        networks("skip_cidr", Key::V4, true),
        networks("skip_cidr6", Key::V6, false),
    ]
}

impl Set {
    fn definition(&self, id: u32) -> Attributes {
        let (number, bytes) = match self.key {
            Key::Port => (13, 2),
            Key::V4 => (7, 4),
            Key::V6 => (8, 16),
        };
        Attributes::default()
            .text(a::SET_TABLE, TABLE)
            .text(a::SET_NAME, self.name)
            .number(a::SET_FLAGS, libc::NFT_SET_INTERVAL as u32)
            .number(a::SET_KEY_TYPE, number)
            .number(a::SET_KEY_LENGTH, bytes)
            .number(a::SET_ID, id)
    }

    fn items(&self) -> Vec<Attributes> {
        let item = |key: &[u8], flags: libc::c_int| {
            let key = Attributes::default().bytes(a::DATA_VALUE, key);
            let item = match flags {
                0 => Attributes::default(),
                flags => Attributes::default().number(a::ITEM_FLAGS, flags as u32),
            };
            item.nested(a::ITEM_KEY, &key)
        };
        let mut items = Vec::new();
        for (first, last) in &self.ranges {
            items.push(item(first, 0));
            // A range up to the very last key has no end.
            items.extend(after(last).map(|end| item(&end, libc::NFT_SET_ELEM_INTERVAL_END)));
        }
        items
    }

    fn message(&self, items: &[Attributes]) -> Attributes {
        Attributes::default()
            .text(a::ITEMS_TABLE, TABLE)
            .text(a::ITEMS_SET, self.name)
            .nested(a::ITEMS, &list(items))
    }
}

/// The key that follows, unless there is none.
fn after(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, is_over) = byte.overflowing_add(1);
        *byte = sum;
        if !is_over {
            return Some(next);
        }
    }
    None
}

fn chain(name: &str, hook: libc::c_int) -> Attributes {
    let hook = Attributes::default()
        .number(a::HOOK_NUMBER, hook as u32)
        .number(a::HOOK_PRIORITY, PRIORITY as u32);
    Attributes::default()
        .text(a::CHAIN_TABLE, TABLE)
        .text(a::CHAIN_NAME, name)
        .nested(a::CHAIN_HOOK, &hook)
        .number(a::CHAIN_POLICY, libc::NF_ACCEPT as u32)
        .text(a::CHAIN_TYPE, "nat")
}

fn chains(rules: &Rules) -> [(&'static str, libc::c_int, Vec<Attributes>); 2] {
    let inbound = vec![
        list(&[tcp(), port_in("skip_in"), vec![returns()]].concat()),
        list(&[tcp(), redirects(rules.inbound_port)].concat()),
    ];
    let mut outbound = Vec::new();
    if let Some(uid) = rules.exempt.uid {
        outbound.push(list(
            &[
                is(libc::NFT_META_SKUID, &uid.to_ne_bytes()),
                vec![returns()],
            ]
            .concat(),
        ));
    }
    if let Some(mark) = rules.exempt.mark {
        outbound.push(list(
            &[
                is(libc::NFT_META_MARK, &mark.0.to_ne_bytes()),
                vec![returns()],
            ]
            .concat(),
        ));
    }
    let mut loopback = [0; libc::IFNAMSIZ];
    loopback[..2].copy_from_slice(b"lo");
    outbound.push(list(
        &[is(libc::NFT_META_OIFNAME, &loopback), vec![returns()]].concat(),
    ));
    outbound.push(list(
        &[tcp(), port_in("skip_out"), vec![returns()]].concat(),
    ));
    // Destination addresses, by where they are in a header of their family.
    for (family, offset, length, set) in [
        (libc::NFPROTO_IPV4, 16, 4, "skip_cidr"),
        (libc::NFPROTO_IPV6, 24, 16, "skip_cidr6"),
    ] {
        let there = payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length);
        let family = is(libc::NFT_META_NFPROTO, &[family as u8]);
        outbound.push(list(
            &[family, vec![there, look_up(set), returns()]].concat(),
        ));
    }
    outbound.push(list(&[tcp(), redirects(rules.outbound_port)].concat()));
    [
        ("pre", libc::NF_INET_PRE_ROUTING, inbound),
        ("out", libc::NF_INET_LOCAL_OUT, outbound),
    ]
}

fn tcp() -> Vec<Attributes> {
    is(libc::NFT_META_L4PROTO, &[libc::IPPROTO_TCP as u8])
}

fn port_in(set: &str) -> Vec<Attributes> {
    vec![
        payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2),
        look_up(set),
    ]
}

fn is(key: libc::c_int, value: &[u8]) -> Vec<Attributes> {
    let load = Attributes::default()
        .number(a::META_KEY, key as u32)
        .number(a::META_TO, REGISTER);
    let compare = Attributes::default()
        .number(a::COMPARE_REGISTER, REGISTER)
        .number(a::COMPARE_HOW, libc::NFT_CMP_EQ as u32)
        .nested(
            a::COMPARE_WITH,
            &Attributes::default().bytes(a::DATA_VALUE, value),
        );
    vec![expression("meta", &load), expression("cmp", &compare)]
}

fn payload(base: libc::c_int, offset: u32, length: u32) -> Attributes {
    let said = Attributes::default()
        .number(a::PAYLOAD_TO, REGISTER)
        .number(a::PAYLOAD_BASE, base as u32)
        .number(a::PAYLOAD_OFFSET, offset)
        .number(a::PAYLOAD_LENGTH, length);
    expression("payload", &said)
}

fn look_up(set: &str) -> Attributes {
    let said = Attributes::default()
        .text(a::LOOKUP_SET, set)
        .number(a::LOOKUP_REGISTER, REGISTER);
    expression("lookup", &said)
}

fn returns() -> Attributes {
    let verdict = Attributes::default().number(a::VERDICT_CODE, libc::NFT_RETURN as u32);
    immediate(
        libc::NFT_REG_VERDICT as u32,
        &Attributes::default().nested(a::DATA_VERDICT, &verdict),
    )
}

fn redirects(port: u16) -> Vec<Attributes> {
    let redirect = Attributes::default()
        .number(a::REDIRECT_PORT_MIN, REGISTER)
        .number(a::REDIRECT_FLAGS, WITH_PORT);
    let port = Attributes::default().bytes(a::DATA_VALUE, &port.to_be_bytes());
    vec![immediate(REGISTER, &port), expression("redir", &redirect)]
}

fn immediate(to: u32, data: &Attributes) -> Attributes {
    let said = Attributes::default()
        .number(a::IMMEDIATE_TO, to)
        .nested(a::IMMEDIATE_DATA, data);
    expression("immediate", &said)
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::default()
        .text(a::EXPRESSION_NAME, name)
        .nested(a::EXPRESSION_DATA, data)
}

fn list(items: &[Attributes]) -> Attributes {
    let begin = Attributes::default();
    items
        .iter()
        .fold(begin, |all, item| all.nested(a::LIST_ITEM, item))
}
