//! What a policy decides.

use crate::Bug;
use crate::bugs::bugs;

#[rustfmt::skip]
pub(crate) const BUGS: &[Bug] = bugs! {
    "policy/breaker.rs" {
        "half-open waits for lost probes as long as an old policy said":
            "probes.until.min(now + probing_for)" => "probes.until",
            "policy::breaker::tests::reload::a_new_policy_does_not_wait_for_lost_probes_for_longer_than_it_says";
        "a call from before it opened counts as a probe":
            "ticket.generation != self.generation || !self.armed" => "!self.armed",
            "policy::breaker::tests::a_call_from_before_the_opening_is_no_probe";
        "a cancelled probe keeps its permit":
            "probes.granted -= 1" => "()",
            "policy::breaker::tests::a_cancelled_probe_gives_its_permit_back";
        "what an operator forces does not end by itself":
            "self.unforce(\"the time for which it was forced is over\");" => "()",
            "policy::breaker::tests::what_an_operator_forces_ends_by_itself_and_starts_afresh";
        "time alone does not end that it is open":
            "now >= until" => "false",
            "policy::breaker::tests::where_nobody_calls_it_is_half_open_once_its_time_is_over";
        "streams are probes that never come back":
            "succeeded + going_on >= self.successes_min()" => "false",
            "policy::breaker::tests::streams::a_service_all_of_whose_calls_are_streams_is_called_again";
        "an operator's word is news with each push":
            "held.is_the_same_as(forced)" => "held == forced",
            "policy::breaker::tests::reload::an_operators_word_that_is_pushed_again_is_no_news";
        "an open breaker refuses when no policy asks for it any more":
            "return self.disarm();" => "return;",
            "policy::breaker::tests::reload::an_open_breaker_that_no_policy_asks_for_any_more_passes_everything";
    }
    "policy/gate.rs" {
        "a probe is judged by the silence of those that came before it":
            "probing.has_waited(stall.limit, now)" => "true",
            "policy::gate::tests::a_probe_has_as_long_as_any_call_however_long_others_have_waited";
        "failures in a row are not counted":
            "in_row >= self.config.consecutive_failures.get()" => "false",
            "policy::gate::tests::five_hard_failures_in_a_row_open_it_for_a_second";
        "failing like everybody else is enough to be ejected":
            "pool_rate - own >= BELOW_POOL_MIN" => "true",
            "policy::gate::tests::an_endpoint_clearly_worse_than_its_pool_opens_and_one_that_fails_like_all_does_not";
        "a new policy closes the gates that are open":
            "*until = (*until).min(now + *config.max_open_for);" => "self.state = State::Closed;",
            "backend::tests::a_new_policy_keeps_gates_latencies_hedges_and_connections";
        "a policy that only observes keeps out what is out":
            "config.mode == Mode::Observe" => "false",
            "policy::gate::tests::released::a_policy_that_only_observes_lets_go_of_what_is_out";
        "a request is the next to wait for a silent endpoint":
            "self.unanswered + 1 < QUESTIONS" => "false",
            "policy::gate::tests::a_silent_one_is_asked_before_a_request_tries_it_and_not_for_ever";
        "who knows no answer stays out for ever":
            "self.unanswered + 1 < QUESTIONS" => "true",
            "policy::gate::tests::a_silent_one_is_asked_before_a_request_tries_it_and_not_for_ever";
    }
    "policy/gate/probing.rs" {
        "a user's request is the first probe":
            "self.synthetic == Synthetic::Passed && self.request.is_none()" => "self.request.is_none()",
            "policy::gate::tests::a_black_hole_costs_no_user_request_once_it_is_open";
        "a stream is a probe that is lost":
            "asked.answered" => "false",
            "policy::gate::tests::streams::an_endpoint_all_of_whose_calls_are_streams_is_taken_back";
    }
    "policy/stall.rs" {
        "silence is a stall although the others are silent too":
            "self.peer_completed_since && quiet_for > limit" => "quiet_for > limit",
            "policy::stall::tests::silence_everywhere_is_no_stall_of_one";
        "three that have just come are proof":
            "waited(start) > self.limit() / P99S" => "true",
            "policy::stall::tests::three_that_wait_for_a_p99_each_are_proof_and_fewer_are_none";
    }
    "policy/stall/doubt.rs" {
        "silence is compared with that of endpoints nobody calls":
            "asks_another.then_some(ProbeKind::Comparison)" => "None",
            "endpoints::tests::gates::an_endpoint_that_hangs_is_compared_with_one_that_nobody_calls";
        "that nobody else answers is no comparison either":
            "self.is_compared && is_over" => "is_over",
            "endpoints::tests::gates::an_endpoint_that_hangs_is_compared_with_one_that_nobody_calls";
        "an endpoint that is asked late has no time to answer":
            "waited > limit / 2 && quiet_for > limit" => "quiet_for > limit",
            "policy::stall::tests::an_endpoint_in_doubt_is_asked_after_a_third_of_the_limit_and_has_half_the_limit_and_all_of_it_to_answer";
    }
    "policy/ramp.rs" {
        "a new endpoint has its whole share at once":
            "passed.div_duration_f64(self.span).max(WEIGHT_MIN)" => "1.0",
            "policy::ramp::tests::it_starts_at_a_tenth_is_linear_and_ends_at_one";
    }
    "policy/ewma.rs" {
        "a failure has no price":
            "self.learn(nanos(penalty), now);" => "()",
            "policy::ewma::tests::failing_fast_is_no_way_to_look_fast";
        "what is in flight has no price":
            "self.nanos * self.left(now) * (f64::from(pending) + 1.0)" => "self.nanos * self.left(now)",
            "policy::ewma::tests::it_starts_at_its_seed_and_grows_with_what_is_in_flight";
    }
    "policy/aperture.rs" {
        "endpoints that are busy do not make it wider":
            "load > BUSY" => "false",
            "policy::aperture::tests::endpoints_that_are_busy_make_it_as_wide_as_the_pool_within_five_seconds";
        "it is narrow again as soon as calls are few":
            "f64::from(in_flight).max(self.level * kept)" => "f64::from(in_flight)",
            "policy::aperture::tests::it_is_wide_at_once_when_calls_pile_up_and_narrow_again_when_they_have_long_been_few";
    }
    "policy/ring.rs" {
        "points depend on the endpoint's place in the list":
            "mixed(own ^ mixed(number as u64 + 1))" => "mixed(u64::from(index) ^ mixed(number as u64 + 1))",
            "policy::ring::tests::an_endpoint_that_goes_takes_only_its_own_keys_with_it";
        "the bound on one endpoint's load is none":
            "(calls - 1e-9).ceil().max(1.0) as u32" => "u32::MAX",
            "policy::ring::tests::one_key_that_everybody_asks_for_does_not_overload_its_endpoint";
    }
    "policy/latency.rs" {
        "what is long over is remembered":
            "passed >= 2 * self.span" => "false",
            "policy::latency::tests::it_knows_nothing_before_the_first_call_and_after_a_long_silence";
    }
    "policy/window.rs" {
        "buckets are not emptied before they are used again":
            "self.buckets[slot(fresh)] = Counts::default();" => "()",
            "policy::window::tests::counts_what_a_list_of_all_calls_would_count";
    }
    "policy/jitter.rs" {
        "everybody comes back at the same moment":
            "(rand >> 11) as f64 / (1u64 << 53) as f64" => "0.5",
            "policy::jitter::tests::the_whole_range_is_used";
    }
    "policy/transition.rs" {
        "transitions that nobody takes pile up":
            "self.pending.len() == PENDING_MAX" => "false",
            "policy::transition::tests::a_caller_that_never_takes_them_costs_bounded_memory_and_loses_the_oldest";
    }
    "policy/retry.rs" {
        "what is not idempotent is repeated":
            "!unprocessed && !attempt.idempotent" => "false",
            "policy::retry::tests::a_request_that_must_not_be_repeated_is_not";
        "a retry waits for its turn as long as it takes":
            "turn <= TURN_WAIT_MAX && in_time(attempt, after)" => "in_time(attempt, after)",
            "policy::retry::tests::where_all_fail_nobody_stands_in_line_for_a_turn_that_is_far_off";
        "a retry is retried":
            "attempt.is_retry_from_downstream" => "false",
            "policy::retry::tests::a_retry_from_downstream_may_still_leave_an_endpoint_that_never_saw_it";
        "a call without a deadline waits for as long as a header says":
            "pushback.is_some() && retry.after > PUSHBACK_MAX" => "false",
            "policy::retry::tests::pushback_is_obeyed_exactly_or_not_at_all";
        "an endpoint that forbids it is asked again":
            "return Err(Stop::Pushback)" => "None",
            "policy::retry::tests::pushback_is_obeyed_exactly_or_not_at_all";
    }
    "policy/budget.rs" {
        "savings have no bound":
            "self.tokens.saturating_add(tokens).min(self.burst)" => "self.tokens.saturating_add(tokens)",
            "policy::budget::tests::savings_are_bounded_even_after_a_year";
        "failures cost nothing":
            "self.tokens.saturating_sub(FAILURE.0)" => "self.tokens",
            "policy::budget::tests::failures_take_from_the_savings_hardly_anything_while_they_are_rare_and_all_when_nothing_works";
        "retries go out together":
            "self.turn = self.turn.max(now) + self.between_turns();" => "()",
            "policy::budget::tests::retries_take_turns_and_busy_callers_more_of_them";
        "who earns more has as many turns as anybody":
            "f64::from(self.per_success) / 1000.0" => "0.1",
            "policy::budget::tests::who_earns_or_saves_more_has_more_turns_and_who_earns_less_has_fewer";
        "a new policy fills the bucket":
            "self.tokens = self.tokens.min(self.burst);" => "self.tokens = self.burst;",
            "backend::tests::a_new_policy_keeps_breakers_open_and_what_retries_have_spent";
        "an empty bucket pays":
            "self.tokens.checked_sub(cost.0)" => "Some(self.tokens.saturating_sub(cost.0))",
            "policy::budget::tests::never_pays_out_more_than_was_paid_in";
    }
    "policy/pushback.rs" {
        "a word that forbids retrying is taken for none":
            "return Some(millis.parse().map_or(Self::Never, after));" => "return millis.parse().ok().map(after);",
            "policy::pushback::tests::seconds_a_date_and_grpc_milliseconds_are_understood";
    }
    "policy/hedge.rs" {
        "a hedge with a third of the endpoints out":
            "weather.gated > GATED_MAX" => "false",
            "policy::hedge::tests::no_hedge_while_anything_says_that_capacity_is_short";
        "the delay does not heed how many hedges are left":
            "f64::from(self.credit) / f64::from(CREDIT_MAX)" => "1.0",
            "policy::hedge::tests::when_calls_begin_to_hang_what_is_left_goes_to_them";
        "that nobody knows a delay is remembered for 100 ms":
            "self.delay.is_none() || !self.delay_as_of.is_some_and(is_fresh)" => "!self.delay_as_of.is_some_and(is_fresh)",
            "policy::hedge::tests::the_first_call_after_enough_answers_can_be_hedged";
        "hedges cost their route nothing":
            "self.credit = left;" => "()",
            "policy::hedge::tests::the_extra_load_never_exceeds_its_share";
    }
    "policy/deadline.rs" {
        "a black hole has all the time there is":
            "left / tries_left.max(1)" => "left",
            "policy::deadline::tests::a_try_leaves_time_for_the_next_one";
    }
    "policy/terms.rs" {
        "what was made of one service's policy is used for another's":
            "Arc::ptr_eq(&made.policy, policy)" => "true",
            "policy::terms::tests::what_is_made_of_a_policy_is_made_once_and_anew_for_another";
    }
    "policy/doomed.rs" {
        "the valve does not count what it refuses":
            "self.calls.add(Counts::FAILURE, now);" => "()",
            "policy::doomed::tests::at_most_half_is_refused_while_nobody_queues_and_all_of_it_while_somebody_does";
    }
    "policy/inheritance.rs" {
        "of several deadlines under one trace the earliest holds":
            "self.deadline.max(other.deadline)" => "self.deadline.min(other.deadline)",
            "policy::inheritance::tests::nobody_shortens_the_time_of_others_by_reusing_their_trace";
    }
    "policy/knee.rs" {
        "who gives up before there is an answer says nothing of the app":
            "self.is_long(latency)" => "false",
            "policy::knee::tests::an_app_whose_callers_all_give_up_has_a_queue_and_who_leaves_early_says_nothing";
        "every long time in the app is taken for a queue":
            "is_asked && point.follows(before) && point.mean > QUEUE_SHRANK * before.mean" => "false",
            "policy::knee::tests::a_service_that_is_slower_for_everybody_is_not_cut_to_pieces";
    }
    "policy/knee/window.rs" {
        "places that are kept free are a limit that is met":
            "self.is_saturated() && 2 * self.met_kept > self.met_limit" => "false",
            "policy::knee::tests::a_limit_that_is_not_used_does_not_grow_but_comes_down_to_what_is";
        "one who met the limit is enough to cut":
            "2 * self.met_limit > self.arrived" => "self.met_limit > 0",
            "policy::knee::tests::a_burst_now_and_then_is_no_reason_to_cut";
    }
    "policy/fair.rs" {
        "who holds its share already is not put back":
            "flows.iter().position(|flow| !has_share(flow.caller))" => "None",
            "policy::fair::tests::who_holds_its_share_waits_for_those_who_do_not_but_an_idle_share_is_lent";
        "a caller has all its turns at once":
            "flows.push_back(flow);" => "flows.push_front(flow);",
            "policy::fair::tests::tiers_come_one_after_the_other_and_callers_in_turn";
    }
    "policy/headroom.rs" {
        "places are kept from nobody":
            "tier > self.tier" => "false",
            "policy::headroom::tests::lower_tiers_leave_free_what_higher_ones_had_to_wait_for";
        "those who matter less get nothing":
            "limit / 4 * 3 + limit % 4 * 3 / 4" => "limit",
            "policy::headroom::tests::nobody_who_matters_less_starves";
        "what is kept is kept for ever":
            "self.places *= LEFT;" => "()",
            "policy::headroom::tests::it_is_given_back_when_nobody_waits";
        "who was slowed is spared for as long as others come":
            "right.map_or(UNKNOWN, |right| right.powf(GAIN))" => "right.map_or(1.0, |right| right.powf(GAIN))",
            "policy::headroom::tests::who_was_slowed_and_comes_no_more_is_spared_no_more";
        "who is slow by itself is spared all others":
            "in_vain < IN_VAIN" => "true",
            "policy::headroom::tests::who_is_slowed_with_nobody_else_in_the_app_is_not_slowed_by_others";
    }
    "policy/pace.rs" {
        "what is slow is usual soon":
            "!saturated" => "true",
            "policy::pace::tests::saturation_is_not_what_anything_is_compared_with";
    }
    "policy/cutoff.rs" {
        "it counts from the least important":
            "self.totals.iter().take_while(|total| taken(total)).count()" =>
            "self.totals.iter().rev().take_while(|total| taken(total)).count()",
            "policy::cutoff::tests::what_matters_is_taken_first_and_of_the_rest_what_fits";
    }
    "policy/callers.rs" {
        "what a caller wanted is never forgotten":
            "self.rate += (now - self.rate) * RATE_WEIGHT;" => "self.rate = self.rate.max(now);",
            "policy::callers::tests::the_caller_that_wants_too_much_is_known_and_forgiven";
    }
    "policy/priority.rs" {
        "a cohort beyond the last is believed":
            "cohort.parse().ok().filter(|&cohort| cohort < COHORTS)?" => "cohort.parse().ok()?",
            "policy::priority::tests::what_is_malformed_says_nothing_and_what_is_unknown_is_skipped";
    }
    "policy/queue.rs" {
        "last come, first served":
            "self.waiting.pop_front()" => "self.waiting.pop_back()",
            "policy::queue::tests::first_come_first_served_without_those_who_gave_up";
    }
    "policy/concurrency.rs" {
        "who gives up after its turn came is taken for one who waited":
            "self.queue.leave(id)" => "self.queue.leave(id) || true",
            "policy::concurrency::tests::one_who_gives_up_after_its_turn_came_passes_the_place_on";
        "a limit that was lowered is not kept":
            "self.in_flight >= self.in_flight_max" => "false",
            "policy::concurrency::tests::a_lower_limit_interrupts_nobody_and_admits_nobody_until_it_is_kept";
    }
    "policy/admission.rs" {
        "nobody is spared who is slowed":
            "slowdown(*tier).is_some_and(|it| it > SLOWED)" => "false",
            "policy::admission::tests::what_matters_is_not_slowed_in_the_app_by_a_flood_of_what_does_not";
        "nothing is made of its being in vain":
            "!headroom.spare(tier, slowdown, self.in_flight, limit)" => "!headroom.spare(tier, slowdown, self.in_flight, limit) && false",
            "policy::admission::tests::what_matters_and_is_slow_by_itself_keeps_nobody_out";
        "places that are kept free are given to whoever waits":
            "self.in_flight + self.headroom.kept_from(tier, limit) < limit" => "self.in_flight < limit",
            "policy::admission::tests::what_matters_finds_a_place_once_it_has_had_to_wait_for_what_does_not";
    }
    "policy/admission/streams.rs" {
        "readers that stand still hold all places":
            "slot.is_answered || others_answered" => "others_answered",
            "policy::admission::tests::who_is_answered_and_does_not_read_gives_the_place_to_others";
        "a long poll is a request in the app for ever":
            "now.saturating_duration_since(slot.since) > old" => "false",
            "policy::admission::tests::who_waits_gets_the_place_of_a_long_poll_that_was_found_out";
        "what turns out to be a stream is counted with them beyond their cap":
            "slot.stream || self.streams >= self.config.streams_max" => "slot.stream",
            "policy::admission::tests::streams_are_counted_apart_and_have_a_cap_of_their_own";
    }
    "policy/rate_limit.rs" {
        "a bucket is emptied no further than it is":
            "(*full_at).max(now) + interval" => "now + interval",
            "policy::rate_limit::tests::a_burst_passes_and_then_one_for_each_interval";
        "inventing keys makes others forget what was taken":
            "self.full_at.retain(|_, full_at| *full_at > now);" => "self.full_at.clear();",
            "policy::rate_limit::tests::inventing_keys_gets_one_share_and_resets_nobody";
        "who is refused by one limit is charged by the others":
            "rule.wait(now)" => "{ let wait = rule.wait(now); rule.take(now); wait }",
            "policy::rate_limit::tests::a_caller_above_its_own_limit_takes_nothing_from_the_others";
    }
    "policy/throttle.rs" {
        "all tiers are dropped alike":
            "((share * all - of_lower) / of_tier).clamp(0.0, DROP_MAX)" => "share",
            "policy::throttle::tests::critical_requests_are_dropped_last";
        "refusals are not forgiven":
            "self.forgive();" => "()",
            "policy::throttle::tests::a_service_that_recovers_is_asked_in_full_within_seconds_and_then_it_is_quiet";
    }
    "policy/load.rs" {
        "what an endpoint said is believed for ever":
            "now.saturating_duration_since(self.at) < EXPIRY" => "true",
            "policy::load::tests::it_follows_within_seconds_and_forgets";
    }
    "policy/memory.rs" {
        "what an allocator has in stock is a shortage of memory":
            "!is_news || self.asked" => "true",
            "policy::memory::tests::a_stock_that_the_allocator_gives_back_is_no_shortage";
        "a shortage of memory comes and goes with each byte":
            "bound - SLACK" => "bound",
            "policy::memory::tests::what_is_used_is_a_shortage_until_there_is_room_again";
        "with next to no memory left it takes its time":
            "self.level == Level::Enough && seen == Level::Short" => "self.level == Level::Enough && seen > Level::Enough",
            "policy::memory::tests::with_next_to_nothing_left_nobody_is_asked_first";
    }
    "policy/stale.rs" {
        "the older of two answers replaces the newer":
            "same(kept) && kept.at > now" => "false",
            "policy::stale::tests::of_two_answers_that_overtook_each_other_the_newer_stays";
        "what was read before a write is kept after it":
            "changed >= asked" => "false",
            "policy::stale::tests::what_was_asked_for_before_a_write_is_not_kept_after_it";
        "what somebody got with credentials is given to others":
            "(self.public || !has_credentials(request))" => "true",
            "policy::stale::tests::what_somebody_got_with_credentials_is_nobody_elses_unless_it_says_so";
        "answers are kept without bound":
            "self.bytes > self.bounds.bytes || self.order.len() > self.bounds.answers" => "false",
            "policy::stale::tests::its_bounds_hold_and_it_counts_right";
        "it is given however old it is":
            "kept.terms.serve(request) && kept.age(now) <= age_max" => "kept.terms.serve(request)",
            "policy::stale::tests::an_answer_is_given_again_until_it_is_as_old_as_the_policy_or_itself_allows";
    }
    "policy/fault.rs" {
        "a fault on purpose does not end by itself":
            "now >= self.until" => "false",
            "policy::fault::tests::it_is_over_at_its_end_whatever_the_clock_says_by_then";
        "a fault meets callers that it does not name":
            "said.callers.is_empty()" => "true",
            "policy::fault::tests::only_the_callers_that_it_names_meet_it";
    }
    "policy/authorize.rs" {
        "what cannot be decided is allowed":
            "rule.is_for(question, true)" =>
            "match rule.is_for(question, true) { Match::Unknown => Match::Not, other => other }",
            "policy::authorize::tests::a_rule_that_denies_is_stronger_and_one_that_may_be_meant_denies_too";
        "whoever begins like somebody is taken for him":
            "Match::of(identity == caller)" => "Match::of(caller.starts_with(identity.as_str()))",
            "policy::authorize::tests::who_is_allowed_is_who_has_proven_to_be_that";
        "a method in small letters is a way around":
            "method.as_str().eq_ignore_ascii_case(name.as_str())" => "method == name",
            "policy::authorize::tests::methods_are_told_apart_but_head_is_a_get_to_whoever_denies_it";
    }
    "policy/episode.rs" {
        "what pauses is told as over":
            "passed(*last) >= OVER" => "true",
            "policy::episode::tests::what_lasts_is_told_once_and_its_end_when_it_has_not_come_back";
    }
    "policy/terms.rs" {
        "a rule's time for one try does not hold":
            "retries.per_try_timeout = per_try.get()" => "()",
            "policy::terms::tests::what_a_rule_does_not_say_is_the_policys";
    }
};
