//! Access control lists with the semantics of Kafka's `StandardAuthorizer`.
//!
//! An action is denied when a DENY entry matches, else allowed when an ALLOW entry matches, else
//! denied when the resource has any entry, else as the configuration says. Super users may do
//! everything. Numbers are those of Kafka's messages.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The name of the one resource of type [`ResourceType::Cluster`].
pub const CLUSTER: &str = "kafka-cluster";

/// As a resource's name: every resource. As a host: every host.
pub const WILDCARD: &str = "*";

/// The principal that stands for everybody.
pub const EVERYBODY: &str = "User:*";

/// The principal of a client that did not say who it is.
pub const ANONYMOUS: &str = "User:ANONYMOUS";

macro_rules! numbered {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$vmeta:meta])* $variant:ident = $number:literal,)* }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum $name {
            $($(#[$vmeta])* $variant,)*
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number in Kafka's messages.
            pub fn number(self) -> i8 {
                match self {
                    $(Self::$variant => $number,)*
                }
            }

            /// The value of that number.
            pub fn of_number(number: i8) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.number() == number)
            }
        }
    };
}

numbered! {
    /// Kinds of resources.
    ResourceType {
        /// A topic.
        Topic = 2,
        /// A consumer group.
        Group = 3,
        /// The cluster itself.
        Cluster = 4,
        /// A transactional producer.
        TransactionalId = 5,
        /// A delegation token; entries are kept, tokens are not served.
        DelegationToken = 6,
        /// A user; entries are kept.
        User = 7,
    }
}

numbered! {
    /// How an entry's name is compared with that of a resource.
    PatternType {
        /// Equal, or `*` for all.
        Literal = 3,
        /// The resource's name begins with it.
        Prefixed = 4,
    }
}

numbered! {
    /// What is done to a resource.
    Operation {
        /// Every operation.
        All = 2,
        /// Read.
        Read = 3,
        /// Write.
        Write = 4,
        /// Create.
        Create = 5,
        /// Delete.
        Delete = 6,
        /// Alter.
        Alter = 7,
        /// Describe.
        Describe = 8,
        /// What brokers do to each other.
        ClusterAction = 9,
        /// Describe settings.
        DescribeConfigs = 10,
        /// Alter settings.
        AlterConfigs = 11,
        /// Write with an idempotent producer.
        IdempotentWrite = 12,
        /// Create delegation tokens.
        CreateTokens = 13,
        /// Describe delegation tokens.
        DescribeTokens = 14,
    }
}

numbered! {
    /// What an entry says.
    Permission {
        /// The operation is forbidden.
        Deny = 2,
        /// The operation is allowed.
        Allow = 3,
    }
}

impl ResourceType {
    /// Operations that make sense for it (Kafka's `AclEntry.supportedOperations`).
    pub fn operations(self) -> &'static [Operation] {
        use Operation::*;
        match self {
            Self::Topic => {
                &[Read, Write, Create, Describe, Delete, Alter, DescribeConfigs, AlterConfigs]
            }
            Self::Group => &[Read, Describe, Delete, DescribeConfigs, AlterConfigs],
            Self::Cluster => &[
                Create,
                ClusterAction,
                DescribeConfigs,
                AlterConfigs,
                IdempotentWrite,
                Alter,
                Describe,
            ],
            Self::TransactionalId => &[Describe, Write],
            Self::DelegationToken => &[Describe],
            Self::User => &[CreateTokens, DescribeTokens],
        }
    }
}

/// One entry with the resources it is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Binding {
    /// Kind of the resources.
    pub resource: ResourceType,
    /// How `name` is compared.
    pub pattern: PatternType,
    /// Name or prefix.
    pub name: String,
    /// For whom, such as `User:alice`.
    pub principal: String,
    /// From which address, or [`WILDCARD`].
    pub host: String,
    /// What.
    pub operation: Operation,
    /// Whether it may.
    pub permission: Permission,
}

/// Which patterns a [`Filter`] matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PatternFilter {
    /// All.
    Any,
    /// Those that apply to a resource of the filter's name.
    Match,
    /// Those of this type.
    Only(PatternType),
}

/// Chooses entries; what is `None` matches all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Kind of the resources.
    pub resource: Option<ResourceType>,
    /// Patterns.
    pub pattern: PatternFilter,
    /// Name.
    pub name: Option<String>,
    /// Principal.
    pub principal: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// Operation.
    pub operation: Option<Operation>,
    /// Permission.
    pub permission: Option<Permission>,
}

impl Filter {
    /// Whether the entry is chosen.
    pub fn matches(&self, entry: &Binding) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w == value);
        self.resource.is_none_or(|r| r == entry.resource)
            && self.name_matches(entry)
            && is(&self.principal, &entry.principal)
            && is(&self.host, &entry.host)
            && self.operation.is_none_or(|o| o == entry.operation)
            && self.permission.is_none_or(|p| p == entry.permission)
    }

    fn name_matches(&self, entry: &Binding) -> bool {
        if let PatternFilter::Only(pattern) = self.pattern
            && pattern != entry.pattern
        {
            return false;
        }
        let Some(name) = &self.name else { return true };
        match (self.pattern, entry.pattern) {
            (PatternFilter::Match, PatternType::Literal) => {
                entry.name == *name || entry.name == WILDCARD
            }
            (PatternFilter::Match, PatternType::Prefixed) => name.starts_with(&entry.name),
            (PatternFilter::Any | PatternFilter::Only(_), _) => entry.name == *name,
        }
    }
}

/// Who acts from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Such as `User:alice`.
    pub principal: String,
    /// The client's address as text: an IPv6 address in its shortest form (RFC 5952).
    pub host: String,
}

/// Rules that stand beside the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Principals that may do everything.
    pub super_users: BTreeSet<String>,
    /// Whether everybody may act on a resource without entries.
    pub allow_without_entries: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    principal: String,
    /// As an [`Actor`] has it: Kafka's users write IPv6 addresses as Java does, without `::`.
    host: String,
    operation: Operation,
    permission: Permission,
}

impl Entry {
    fn concerns(&self, actor: &Actor) -> bool {
        (self.principal == EVERYBODY || self.principal == actor.principal)
            && (self.host == WILDCARD || self.host == actor.host)
    }

    /// Whether it is about the operation: an ALLOW also covers what it implies.
    fn covers(&self, operation: Operation) -> bool {
        use Operation::*;
        if self.operation == All || self.operation == operation {
            return true;
        }
        let implied = match operation {
            Describe => matches!(self.operation, Read | Write | Delete | Alter),
            DescribeConfigs => self.operation == AlterConfigs,
            _ => false,
        };
        implied && self.permission == Permission::Allow
    }
}

/// Entries of one kind of resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kind {
    literal: HashMap<String, Vec<Entry>>,
    prefixed: HashMap<String, Vec<Entry>>,
    /// Lengths of prefixes that occur, each once, and how many have it.
    lengths: BTreeMap<usize, usize>,
}

impl Kind {
    /// Every list that applies to a resource.
    fn lists<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Vec<Entry>> {
        let exact = self.literal.get(name);
        let all = self.literal.get(WILDCARD).filter(|_| name != WILDCARD);
        let lengths = self.lengths.keys().take_while(|len| **len <= name.len());
        let prefixes = lengths.filter_map(|len| self.prefixed.get(name.get(..*len)?));
        exact.into_iter().chain(all).chain(prefixes)
    }
}

/// All entries, indexed for decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclTable {
    entries: BTreeSet<Binding>,
    kinds: BTreeMap<ResourceType, Kind>,
}

impl AclTable {
    /// A table of these entries.
    pub fn new(entries: BTreeSet<Binding>) -> Self {
        let mut kinds: BTreeMap<ResourceType, Kind> = BTreeMap::new();
        for binding in &entries {
            let kind = kinds.entry(binding.resource).or_default();
            let entry = Entry {
                principal: binding.principal.clone(),
                host: match binding.host.parse::<IpAddr>() {
                    Ok(address) => address.to_canonical().to_string(),
                    Err(_) => binding.host.clone(),
                },
                operation: binding.operation,
                permission: binding.permission,
            };
            match binding.pattern {
                PatternType::Literal => {
                    kind.literal.entry(binding.name.clone()).or_default().push(entry);
                }
                PatternType::Prefixed => {
                    *kind.lengths.entry(binding.name.len()).or_default() += 1;
                    kind.prefixed.entry(binding.name.clone()).or_default().push(entry);
                }
            }
        }
        Self { entries, kinds }
    }

    /// All entries.
    pub fn entries(&self) -> &BTreeSet<Binding> {
        &self.entries
    }

    /// Whether the actor may do this to the resource.
    pub fn allows(
        &self,
        rules: &Rules,
        actor: &Actor,
        operation: Operation,
        resource: ResourceType,
        name: &str,
    ) -> bool {
        if rules.super_users.contains(&actor.principal) {
            return true;
        }
        let Some(kind) = self.kinds.get(&resource) else { return rules.allow_without_entries };
        let (mut any, mut allowed) = (false, false);
        for entry in kind.lists(name).flatten() {
            any = true;
            if entry.concerns(actor) && entry.covers(operation) {
                match entry.permission {
                    Permission::Deny => return false,
                    Permission::Allow => allowed = true,
                }
            }
        }
        allowed || (!any && rules.allow_without_entries)
    }

    /// Whether the actor may do this to at least one resource of the kind that could exist
    /// (Kafka's `authorizeByResourceType`).
    pub fn allows_somewhere(
        &self,
        rules: &Rules,
        actor: &Actor,
        operation: Operation,
        resource: ResourceType,
    ) -> bool {
        if rules.super_users.contains(&actor.principal) {
            return true;
        }
        let Some(kind) = self.kinds.get(&resource) else { return rules.allow_without_entries };
        let has = |list: &[Entry], permission: Permission| {
            list.iter().any(|entry| {
                entry.permission == permission && entry.concerns(actor) && entry.covers(operation)
            })
        };
        let denied_all = |list: &Vec<Entry>| has(list, Permission::Deny);
        if kind.literal.get(WILDCARD).is_some_and(denied_all) {
            return false;
        }
        // Kafka asks for this name first: where resources without entries are open, most are,
        // unless an entry is for all.
        if rules.allow_without_entries && self.allows(rules, actor, operation, resource, "hardcode")
        {
            return true;
        }
        let prefix_denied = |name: &str| {
            let lengths = kind.lengths.keys().take_while(|len| **len <= name.len());
            lengths.filter_map(|len| kind.prefixed.get(name.get(..*len)?)).any(denied_all)
        };
        let literal = kind.literal.iter().any(|(name, list)| {
            has(list, Permission::Allow)
                && (name == WILDCARD || !denied_all(list) && !prefix_denied(name))
        });
        literal
            || kind
                .prefixed
                .iter()
                .any(|(name, list)| has(list, Permission::Allow) && !prefix_denied(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::*;
    use Permission::{Allow, Deny};
    use ResourceType::{Cluster, Group, Topic};

    fn entry(name: &str, principal: &str, operation: Operation, permission: Permission) -> Binding {
        let (pattern, name) = match name.strip_suffix("..") {
            Some(prefix) => (PatternType::Prefixed, prefix),
            None => (PatternType::Literal, name),
        };
        Binding {
            resource: Topic,
            pattern,
            name: name.to_owned(),
            principal: principal.to_owned(),
            host: WILDCARD.to_owned(),
            operation,
            permission,
        }
    }

    fn actor(name: &str) -> Actor {
        Actor { principal: format!("User:{name}"), host: "10.0.0.1".to_owned() }
    }

    fn check(entries: &[Binding], expected: &[(&str, Operation, &str, bool)]) {
        let table = AclTable::new(entries.iter().cloned().collect());
        let rules = Rules::default();
        for (who, operation, topic, allowed) in expected {
            let got = table.allows(&rules, &actor(who), *operation, Topic, topic);
            assert_eq!(got, *allowed, "{who} {operation:?} {topic}");
        }
    }

    #[test]
    fn literal_prefixed_and_wildcard_entries_apply() {
        check(
            &[
                entry("orders", "User:a", Write, Allow),
                entry("team-..", "User:a", Read, Allow),
                entry("*", "User:b", Read, Allow),
                entry("public", EVERYBODY, All, Allow),
            ],
            &[
                ("a", Write, "orders", true),
                ("a", Read, "orders", false),
                ("a", Write, "orders2", false),
                ("a", Read, "team-x", true),
                ("a", Read, "team-", true),
                ("a", Read, "team", false),
                ("b", Read, "anything", true),
                ("b", Write, "anything", false),
                ("c", Delete, "public", true),
                ("c", Read, "orders", false),
            ],
        );
    }

    #[test]
    fn deny_goes_before_allow_and_does_not_imply() {
        check(
            &[
                entry("*", EVERYBODY, All, Allow),
                entry("sec..", "User:a", Read, Deny),
                entry("x", "User:a", Describe, Deny),
            ],
            &[
                ("a", Read, "secret", false),
                ("a", Describe, "secret", true),
                ("a", Write, "secret", true),
                ("a", Describe, "x", false),
                ("a", Read, "x", true),
                ("b", Read, "secret", true),
            ],
        );
    }

    #[test]
    fn operations_imply_describing() {
        for (given, operation, implied) in [
            (Read, Describe, true),
            (Write, Describe, true),
            (Delete, Describe, true),
            (Alter, Describe, true),
            (Create, Describe, false),
            (AlterConfigs, DescribeConfigs, true),
            (AlterConfigs, Describe, false),
            (Alter, DescribeConfigs, false),
            (Describe, Read, false),
        ] {
            check(&[entry("t", "User:a", given, Allow)], &[("a", operation, "t", implied)]);
        }
    }

    #[test]
    fn hosts_kinds_and_super_users_count() {
        let mut from = entry("t", "User:a", Read, Allow);
        from.host = "10.0.0.2".to_owned();
        check(std::slice::from_ref(&from), &[("a", Read, "t", false)]);
        let table = AclTable::new([from].into());
        let other = Actor { host: "10.0.0.2".to_owned(), ..actor("a") };
        let rules = Rules { super_users: ["User:root".to_owned()].into(), ..Rules::default() };
        assert!(table.allows(&rules, &other, Read, Topic, "t"));
        assert!(!table.allows(&rules, &other, Read, Group, "t"));
        assert!(table.allows(&rules, &actor("root"), Alter, Cluster, CLUSTER));
        for (written, seen) in [
            ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("::ffff:10.0.0.2", "10.0.0.2"),
        ] {
            let mut never = entry("t", EVERYBODY, Read, Deny);
            never.host = written.to_owned();
            let table = AclTable::new([never, entry("t", "User:a", Read, Allow)].into());
            let from = |host: &str| Actor { host: host.to_owned(), ..actor("a") };
            assert!(!table.allows(&Rules::default(), &from(seen), Read, Topic, "t"), "{written}");
            assert!(table.allows(&Rules::default(), &from("2001:db8::2"), Read, Topic, "t"));
        }
    }

    #[test]
    fn resources_without_entries_follow_the_configuration() {
        let table = AclTable::new([entry("t", "User:a", Read, Allow)].into());
        let open = Rules { allow_without_entries: true, ..Rules::default() };
        assert!(table.allows(&open, &actor("b"), Write, Topic, "other"));
        assert!(!table.allows(&open, &actor("b"), Read, Topic, "t"));
        assert!(table.allows(&open, &actor("b"), Read, Group, "g"));
        assert!(!table.allows(&Rules::default(), &actor("b"), Read, Group, "g"));
    }

    #[test]
    fn somewhere_means_not_dominated_by_a_denial() {
        let may = |entries: &[Binding]| {
            let table = AclTable::new(entries.iter().cloned().collect());
            table.allows_somewhere(&Rules::default(), &actor("a"), Write, Topic)
        };
        assert!(!may(&[]));
        assert!(may(&[entry("t", "User:a", Write, Allow)]));
        assert!(!may(&[entry("t", "User:a", Read, Allow)]));
        let denied = entry("t", EVERYBODY, Write, Deny);
        assert!(!may(&[entry("t", "User:a", Write, Allow), denied.clone()]));
        assert!(may(&[entry("t..", "User:a", Write, Allow), denied.clone()]));
        let prefix = entry("te..", EVERYBODY, Write, Deny);
        assert!(!may(&[entry("team..", "User:a", Write, Allow), prefix.clone()]));
        assert!(may(&[entry("t..", "User:a", Write, Allow), prefix]));
        assert!(!may(&[entry("t", "User:a", Write, Allow), entry("*", EVERYBODY, All, Deny)]));
        assert!(may(&[entry("*", "User:a", Write, Allow), denied]));
        let open = Rules { allow_without_entries: true, ..Rules::default() };
        let may_openly = |entries: &[Binding]| {
            let table = AclTable::new(entries.iter().cloned().collect());
            table.allows_somewhere(&open, &actor("a"), Write, Topic)
        };
        assert!(may_openly(&[]) && may_openly(&[entry("t", "User:b", Write, Allow)]));
        assert!(!may_openly(&[entry("*", "User:b", Write, Allow)]), "every resource has an entry");
    }

    #[test]
    fn filters_choose_as_kafka_does() {
        let any = Filter {
            resource: None,
            pattern: PatternFilter::Any,
            name: None,
            principal: None,
            host: None,
            operation: None,
            permission: None,
        };
        let (literal, prefix) =
            (entry("team-a", "User:a", Read, Allow), entry("team..", "User:b", Read, Allow));
        let star = entry("*", "User:c", Read, Allow);
        let chosen = |filter: &Filter| {
            let all = [&literal, &prefix, &star];
            all.into_iter().filter(|e| filter.matches(e)).map(|e| &e.principal[5..]).collect()
        };
        let named = |pattern| Filter { pattern, name: Some("team-a".to_owned()), ..any.clone() };
        let all: String = chosen(&any);
        assert_eq!(all, "abc");
        assert_eq!(chosen(&named(PatternFilter::Any)), "a");
        assert_eq!(chosen(&named(PatternFilter::Match)), "abc");
        assert_eq!(chosen(&named(PatternFilter::Only(PatternType::Prefixed))), "");
        let prefixed = PatternFilter::Only(PatternType::Prefixed);
        assert_eq!(chosen(&Filter { pattern: prefixed, ..any.clone() }), "b");
        assert_eq!(chosen(&Filter { principal: Some("User:c".to_owned()), ..any.clone() }), "c");
        assert_eq!(chosen(&Filter { permission: Some(Deny), ..any }), "");
    }
}
