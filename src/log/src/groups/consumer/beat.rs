//! A heartbeat of a member that joins or stays: what it says, what follows, what it is told.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};
use tracing::info;

use super::super::coordinator::Effect;
use super::super::types::{GroupError, Token};
use super::assignors::Assignor;
use super::member::{Member, Progress, Wish};
use super::types::{
    Beat, BeatReply, BeatSettings, JOINS, LEAVES, LEAVES_FOR_A_WHILE, Refusal, TopicView,
};
use super::{Group, re2, reconcile};
use crate::limits::{
    MAX_ALL_PARTITIONS, MAX_COMPILED_REGEX, MAX_GROUP_NAME, MAX_GROUP_WEIGHT, MAX_MEMBER_NAME,
    MAX_REGEX, MAX_SUBSCRIPTION, MAX_TOPIC_NAME, MAX_UNSAVED_LEAVERS,
};
use crate::types::PartKey;

/// A regular expression is looked at again after this time, as in Kafka: who may see which topics
/// changes, too.
const LOOK_AGAIN_MS: i64 = 600_000;

/// A member that has not confirmed what it may own is told again after so many heartbeats.
const TELL_AGAIN_BEATS: i64 = 2;

/// What a heartbeat is judged by.
#[derive(Clone, Copy)]
pub(in crate::groups) struct Context<'a> {
    pub(in crate::groups) settings: BeatSettings,
    pub(in crate::groups) max_members: usize,
    pub(in crate::groups) topics: &'a dyn TopicView,
    /// The id of a new member that brings none.
    pub(in crate::groups) fresh_id: &'a str,
}

/// Who a heartbeat is from.
enum Place {
    Known(String),
    New(String),
    /// A static member that came back under another member id.
    Returns {
        before: String,
        now: String,
    },
}

/// Refuses what no group would take.
pub(in crate::groups) fn validate(beat: &Beat) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(GroupError::InvalidRequest, message));
    let names_itself = beat.brings_id || beat.epoch > 0 || beat.epoch == LEAVES;
    if names_itself && beat.member.is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if beat.group.is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if beat.instance.as_deref() == Some("") {
        return invalid("InstanceId can't be empty.");
    }
    if beat.rack.as_deref() == Some("") {
        return invalid("RackId can't be empty.");
    }
    if beat.epoch == JOINS {
        if beat.rebalance_timeout_ms.is_none() {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if beat.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        if beat.topics.is_none() && beat.regex.is_none() {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
                 (re-)joining.",
            );
        }
    } else if beat.epoch == LEAVES_FOR_A_WHILE && beat.instance.is_none() {
        return invalid("InstanceId can't be null.");
    } else if beat.epoch < LEAVES_FOR_A_WHILE {
        return invalid("MemberEpoch is invalid.");
    }
    let assignor = beat.assignor.as_deref();
    if let Some(name) = assignor.filter(|name| Assignor::by_name(name).is_none()) {
        let known = Assignor::ALL.map(Assignor::name).join(", ");
        let message =
            format!("ServerAssignor {name} is not supported. Supported assignors: {known}.");
        return Err(Refusal::new(GroupError::UnsupportedAssignor, message));
    }
    bound(beat)
}

/// Kafka has no such limits; what is beyond them is no client's.
fn bound(beat: &Beat) -> Result<(), Refusal> {
    let names = [Some(&beat.member), beat.instance.as_ref(), beat.rack.as_ref()];
    let mut names = names.into_iter().flatten();
    let topics = beat.topics.iter().flatten();
    let too_long = beat.group.len() > MAX_GROUP_NAME
        || names.any(|name| name.len() > MAX_MEMBER_NAME)
        || topics.clone().any(|name| name.len() > MAX_TOPIC_NAME);
    if too_long {
        return Err(Refusal::new(GroupError::InvalidRequest, "A name is too long."));
    }
    let owned = beat.owned.as_ref().map_or(0, BTreeSet::len);
    if topics.count() > MAX_ALL_PARTITIONS || owned > MAX_ALL_PARTITIONS {
        return Err(Refusal::new(GroupError::InvalidRequest, "The request names too many topics."));
    }
    match &beat.regex {
        Some(regex) if regex.len() > MAX_REGEX => Err(bad_regex("", "it is too long")),
        _ => Ok(()),
    }
}

fn bad_regex(regex: &str, why: &str) -> Refusal {
    let message =
        format!("SubscribedTopicRegex `{regex}` is not a valid regular expression: {why}.");
    Refusal::new(GroupError::InvalidRegularExpression, message)
}

/// A regular expression that matches whole names.
fn compile(regex: &str) -> Result<Regex, Refusal> {
    let build =
        |text: &str| RegexBuilder::new(text).size_limit(MAX_COMPILED_REGEX).octal(true).build();
    let rewritten = re2::rewritten(regex);
    // Alone first: `a)(b` becomes one only between parentheses.
    let whole = build(&rewritten).and_then(|_| build(&format!(r"\A(?:{rewritten})\z")));
    whole.map_err(|error| {
        // The last line says what is wrong, those before show where.
        let text = error.to_string();
        bad_regex(regex, text.lines().last().unwrap_or_default())
    })
}

impl Group {
    pub(in crate::groups) fn heartbeat(
        &mut self,
        now_ms: i64,
        token: Token,
        beat: &Beat,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        let done = if beat.epoch < JOINS {
            self.leave(token, beat, out)
        } else {
            self.stay(now_ms, beat, context).map(|reply| self.answer(token, reply, out))
        };
        if let Err(refusal) = done {
            out.push(Effect::Beat(token, Err(refusal)));
        }
    }

    fn stay(
        &mut self,
        now_ms: i64,
        beat: &Beat,
        context: Context<'_>,
    ) -> Result<BeatReply, Refusal> {
        let place = self.place(beat, context)?;
        let before = match &place {
            Place::Known(id) | Place::Returns { before: id, .. } => self.members.get(id),
            Place::New(_) => None,
        };
        let old = before.map(|member| member.wish.clone());
        let looked = before.and_then(|m| m.looked).filter(|_| matches!(place, Place::Known(_)));
        let mut wish = old.clone().unwrap_or_default().updated(beat);
        // A member that joins has found nothing yet.
        let same = old.as_ref().is_some_and(|old| old.regex == wish.regex);
        let looked = looked.filter(|_| same && beat.epoch != JOINS);
        let looked = look(&mut wish, looked, now_ms, context.topics)?;
        self.check_weight(old.as_ref(), &wish)?;
        // Nothing is refused from here on.
        let assigned = before.map(|member| member.assigned.clone()).unwrap_or_default();
        let told = before.map_or(0, |member| member.epoch);
        let reads_on = old.as_ref().is_some_and(|old| old.reads_like(&wish));
        let id = self.admit(place, beat, now_ms);
        self.say(&id, wish, looked);
        if !reads_on {
            self.topics_version = None;
            self.bump();
        }
        self.look_at_topics(context.topics);
        self.assign(context.topics);
        // That somebody joins who is here may be an old request that was long on its way: it says
        // nothing of what the member owns now.
        let owned = beat.owned.as_ref().filter(|_| beat.epoch != JOINS || told <= 0);
        self.reconcile(now_ms, &id, owned);
        Ok(self.reply(now_ms, id, beat, context.settings, told, &assigned))
    }

    fn place(&self, beat: &Beat, context: Context<'_>) -> Result<Place, Refusal> {
        if beat.epoch != JOINS {
            let id = self.find(beat)?;
            self.check_epoch(&id, beat)?;
            return Ok(Place::Known(id));
        }
        let holder = beat.instance.as_ref().and_then(|instance| self.statics.get(instance));
        // The answer to its joining was lost, or it begins anew: it owns nothing now, and stays
        // who it is. Kafka, too, since KAFKA-19233.
        if holder.is_none_or(|holder| *holder == beat.member)
            && self.members.contains_key(&beat.member)
        {
            return Ok(Place::Known(beat.member.clone()));
        }
        let now = if beat.member.is_empty() { context.fresh_id } else { &beat.member };
        let Some(before) = holder else {
            if self.members.len() >= context.max_members {
                return Err(full(context.max_members));
            }
            if self.unsaved_leavers() > MAX_UNSAVED_LEAVERS {
                return Err(GroupError::CoordinatorNotAvailable.into());
            }
            return Ok(Place::New(now.to_owned()));
        };
        let away = |member: &Member| member.epoch == LEAVES_FOR_A_WHILE;
        if !self.members.get(before).is_some_and(away) {
            let instance = beat.instance.as_deref().unwrap_or_default();
            let message = format!(
                "Static member {now} with instance id {instance} cannot join the group because \
                 the instance id is owned by {before} member."
            );
            return Err(Refusal::new(GroupError::UnreleasedInstanceId, message));
        }
        if self.members.contains_key(now) {
            let message = format!("Member {now} is in the group under another instance id.");
            return Err(Refusal::new(GroupError::InvalidRequest, message));
        }
        Ok(Place::Returns { before: before.clone(), now: now.to_owned() })
    }

    /// A member speaks of the epoch that it is in, or of the one before where it did not hear of
    /// its new one and so owns nothing that it may not.
    fn check_epoch(&self, id: &str, beat: &Beat) -> Result<(), Refusal> {
        let Some(member) = self.members.get(id) else { return Ok(()) };
        let (theirs, ours) = (beat.epoch, member.epoch);
        let within = |owned: &BTreeSet<PartKey>| owned.is_subset(&member.assigned);
        let unheard = theirs == member.previous_epoch && beat.owned.as_ref().is_some_and(within);
        if theirs == ours || theirs < ours && unheard {
            return Ok(());
        }
        let than = if theirs > ours { "greater" } else { "smaller" };
        let message = format!(
            "The consumer group member has a {than} member epoch ({theirs}) than the one known by \
             the group coordinator ({ours}). The member must abandon all its partitions and rejoin."
        );
        Err(Refusal::new(GroupError::FencedMemberEpoch, message))
    }

    fn check_weight(&self, old: Option<&Wish>, new: &Wish) -> Result<(), Refusal> {
        let (old, new) = (old.map_or(0, Wish::weight), new.weight());
        if new <= old {
            return Ok(());
        }
        if new > MAX_SUBSCRIPTION {
            let message = "The member subscribes to too many topics.";
            return Err(Refusal::new(GroupError::InvalidRequest, message));
        }
        if self.weight - old + new > MAX_GROUP_WEIGHT {
            let message = "The subscriptions of the consumer group's members are too large.";
            return Err(Refusal::new(GroupError::GroupMaxSizeReached, message));
        }
        Ok(())
    }

    /// Takes the member in where it is not in the group yet; returns its id.
    fn admit(&mut self, place: Place, beat: &Beat, now_ms: i64) -> String {
        let id = match place {
            Place::Known(id) => id,
            Place::New(id) => {
                info!(group = %self.id, member = %id, "member joins the consumer group");
                self.weight += Wish::default().weight();
                self.members.insert(id.clone(), Member::new(now_ms));
                self.dirty.insert(id.clone());
                id
            }
            Place::Returns { before, now } => {
                self.rename(&before, &now);
                now
            }
        };
        if let Some(member) = self.members.get_mut(&id)
            && beat.epoch == JOINS
            && member.epoch == LEAVES_FOR_A_WHILE
        {
            (member.epoch, member.previous_epoch) = (0, 0);
            self.dirty.insert(id.clone());
        }
        id
    }

    /// KIP-848: a static member that returns takes over what the one before had.
    fn rename(&mut self, before: &str, now: &str) {
        let Some(member) = self.members.remove(before) else { return };
        info!(group = %self.id, member = %now, before, "static member returns");
        for key in &member.assigned {
            self.owners.insert(*key, now.to_owned());
        }
        if let Some(instance) = &member.wish.instance {
            self.statics.insert(instance.clone(), now.to_owned());
        }
        self.members.insert(now.to_owned(), member);
        self.dirty.extend([before.to_owned(), now.to_owned()]);
    }

    /// Notes what a member says of itself.
    fn say(&mut self, id: &str, wish: Wish, looked: Option<(i64, u64)>) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.looked = looked;
        if member.wish == wish {
            return;
        }
        if member.wish.instance != wish.instance {
            if let Some(instance) = &member.wish.instance {
                self.statics.remove(instance);
            }
            if let Some(instance) = &wish.instance {
                self.statics.insert(instance.clone(), id.to_owned());
            }
        }
        self.weight = self.weight + wish.weight() - member.wish.weight();
        member.wish = wish;
        self.dirty.insert(id.to_owned());
    }

    /// Takes the member as far towards its target as it can go now.
    fn reconcile(&mut self, now_ms: i64, id: &str, owned: Option<&BTreeSet<PartKey>>) {
        let Some(member) = self.members.get_mut(id) else { return };
        let is_free = |key: &PartKey| self.owners.get(key).is_none_or(|owner| owner == id);
        let Some(step) = reconcile::step(member, self.target_epoch, owned, is_free) else { return };
        let same = step.epoch == member.epoch
            && step.progress == member.progress
            && step.assigned == member.assigned
            && step.revoking == member.revoking;
        if same {
            return;
        }
        for key in member.assigned.iter().chain(&member.revoking) {
            self.owners.remove(key);
        }
        for key in step.assigned.iter().chain(&step.revoking) {
            let other = self.owners.insert(*key, id.to_owned());
            assert!(other.is_none(), "two members would own {key:?}");
        }
        member.previous_epoch = member.epoch;
        member.epoch = step.epoch;
        member.progress = step.progress;
        member.assigned = step.assigned;
        member.revoking = step.revoking;
        let timeout = i64::from(member.wish.rebalance_timeout_ms);
        let until = now_ms.saturating_add(timeout);
        member.revoke_until_ms = (step.progress == Progress::Revoking).then_some(until);
        self.dirty.insert(id.to_owned());
    }

    /// Begins the member's session anew and says what it is to hear. `told` and `assigned` are
    /// its epoch and what it might own before this heartbeat.
    fn reply(
        &mut self,
        now_ms: i64,
        id: String,
        beat: &Beat,
        settings: BeatSettings,
        told: i32,
        assigned: &BTreeSet<PartKey>,
    ) -> BeatReply {
        let interval_ms = settings.interval_ms;
        let Some(member) = self.members.get_mut(&id) else {
            return BeatReply { member: id, epoch: beat.epoch, interval_ms, assignment: None };
        };
        member.expires_ms = now_ms.saturating_add(settings.session_ms);
        let subscribes = beat.topics.is_some() || beat.regex.is_some();
        let says_all = beat.rebalance_timeout_ms.is_some() && subscribes && beat.owned.is_some();
        // A member that speaks of an older epoch did not hear the last answer, and one that is to
        // give something up may not have.
        let unheard = beat.epoch != told || member.progress == Progress::Revoking;
        let news = member.assigned != *assigned;
        // The answer may have been lost though the epoch stays the same. librdkafka (2.16) asks for
        // nothing again after a time-out, and what it was to take would be nobody's for good.
        if beat.owned.as_ref() == Some(&member.assigned) {
            member.told_ms = None;
        }
        let patience_ms = i64::from(interval_ms).saturating_mul(TELL_AGAIN_BEATS);
        let silent = member.told_ms.is_some_and(|told| now_ms.saturating_sub(told) >= patience_ms);
        let tells = beat.epoch == JOINS || says_all || unheard || news || silent;
        if tells && beat.owned.as_ref() != Some(&member.assigned) {
            member.told_ms = Some(now_ms);
        }
        let assignment = tells.then(|| member.assigned.clone());
        let (epoch, deadline_ms) = (member.epoch, member.deadline_ms());
        self.is_due(deadline_ms);
        BeatReply { member: id, epoch, interval_ms, assignment }
    }
}

fn full(max_members: usize) -> Refusal {
    let message =
        format!("The consumer group has reached its maximum capacity of {max_members} members.");
    Refusal::new(GroupError::GroupMaxSizeReached, message)
}

/// Looks which topics a member's regular expression finds, where that may have changed; returns
/// when it was looked at, and which topics there were.
fn look(
    wish: &mut Wish,
    looked: Option<(i64, u64)>,
    now_ms: i64,
    topics: &dyn TopicView,
) -> Result<Option<(i64, u64)>, Refusal> {
    let Some(regex) = &wish.regex else {
        wish.matched.clear();
        return Ok(None);
    };
    let version = topics.version();
    let fresh =
        |(at_ms, of): &(i64, u64)| *of == version && now_ms.saturating_sub(*at_ms) < LOOK_AGAIN_MS;
    if let Some(looked) = looked.filter(fresh) {
        return Ok(Some(looked));
    }
    let regex = compile(regex)?;
    wish.matched = topics.visible().into_iter().filter(|name| regex.is_match(name)).collect();
    Ok(Some((now_ms, version)))
}
