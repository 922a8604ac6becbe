//! The list of the proxy. What a policy promises first, then how the layer keeps the promise.

use crate::Bug;

macro_rules! bugs {
    ($($file:literal { $($what:literal: $code:literal => $planted:literal, $caught_by:literal;)+ })+) => {
        &[$($(Bug { what: $what, file: $file, code: $code, planted: $planted, caught_by: $caught_by },)+)+]
    };
}

pub(crate) use bugs;

#[rustfmt::skip]
pub(crate) const BUGS: &[Bug] = bugs! {
    "policy/breaker.rs" {
        "a call from before it opened counts as a probe":
            "ticket.generation != self.generation || !self.armed" => "!self.armed",
            "policy::breaker::tests::a_call_from_before_the_opening_is_no_probe";
        "a cancelled probe keeps its permit":
            "probes.granted -= 1" => "()",
            "policy::breaker::tests::a_cancelled_probe_gives_its_permit_back";
        "what an operator forces does not end by itself":
            "self.unforce(\"the time for which it was forced is over\");" => "()",
            "policy::breaker::tests::what_an_operator_forces_ends_by_itself_and_starts_afresh";
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
    "layer/breaker.rs" {
        "a breaker that only observes refuses":
            "self.mode == Mode::Observe && !breaker.state().1" => "false",
            "layer::breaker::tests::one_that_only_observes_asks_all_the_same_but_whom_an_operator_forces_is_forced";
        "who asks too often is a failure of the service":
            "self.over_quota = is_over_quota(response);" => "()",
            "layer::breaker::tests::who_asks_more_often_than_it_may_is_no_reason_to_stop_asking";
        "the breaker does not hear that a stream has begun":
            "self.ticket.is_probe()" => "false",
            "layer::breaker::tests::a_service_that_only_streams_is_called_again_after_it_failed";
        "a service that hangs until the deadline is nobody's failure":
            "self.enough.is_over(now)" => "false",
            "layer::breaker::tests::a_service_that_hangs_until_the_policys_deadline_opens_it_and_a_hasty_caller_does_not";
        "a breaker that is forced open passes where it observes":
            "self.mode == Mode::Observe && !breaker.state().1" => "self.mode == Mode::Observe",
            "layer::breaker::tests::one_that_only_observes_asks_all_the_same_but_whom_an_operator_forces_is_forced";
    }
    "policy/gate.rs" {
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
    "question.rs" {
        "no answer is one":
            "answered.unwrap_or(false)" => "answered.unwrap_or(true)",
            "question::tests::an_app_that_hangs_is_not";
        "a sidecar answers for its app":
            "!headers.contains_key(&head::UNPROCESSED)" => "true",
            "question::tests::by_way_of_its_sidecar_the_app_counts_and_not_the_sidecar";
    }
    "policy/stall.rs" {
        "silence is a stall although the others are silent too":
            "self.peer_completed_since && quiet_for > self.limit()" => "quiet_for > self.limit()",
            "policy::stall::tests::silence_everywhere_is_no_stall_of_one";
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
    "balance.rs" {
        "the first of the two is taken, whatever it costs":
            "b.1.cost.total_cmp(&a.1.cost).is_lt()" => "false",
            "balance::tests::the_dearest_of_many_gets_nothing_and_the_cheapest_does_not_get_all";
        "an endpoint that is being spared wins whenever it is cheaper":
            "cheap_anyway || rng.f64() * dear.1.weight < cheap.1.weight" => "true",
            "balance::tests::an_endpoint_in_slow_start_gets_its_share_even_when_all_are_idle";
        "weights are ignored when all are idle":
            "rng.f64() < self.share(index)" => "true",
            "balance::tests::shares_hold_when_all_are_idle_and_when_all_are_busy";
        "a zone is never left":
            "near.1.weighted() > FAR_FACTOR * far.1.weighted_beside(&near.1)" => "false",
            "balance::tests::calls_stay_in_their_zone_until_it_is_one_and_a_half_times_as_loaded";
        "in a panic everything goes to those that fail":
            "spill.weighted() < load.weighted()" => "true",
            "balance::tests::in_a_panic_the_gated_help_in_proportion_and_only_when_it_is_cheaper";
        "in a panic the gated do not help":
            "self.size <= DRAWS_MAX" => "return None",
            "balance::tests::in_a_panic_the_less_penalised_of_those_that_fail_helps_more";
    }
    "balance/load.rs" {
        "who is far away looks better the longer it is left alone":
            "self.cost.max(least) / self.weight" => "self.cost / self.weight",
            "endpoints::tests::choice::rare_calls_stay_in_their_zone_as_well";
    }
    "push.rs" {
        "a service that is gone looks open for ever":
            "gone.say_goodbye();" => "()",
            "mesh::tests::a_service_that_is_gone_does_not_look_open_for_ever";
    }
    "policy/aperture.rs" {
        "endpoints that are busy do not make it wider":
            "load > BUSY" => "false",
            "policy::aperture::tests::endpoints_that_are_busy_make_it_as_wide_as_the_pool_within_five_seconds";
        "it is narrow again as soon as calls are few":
            "f64::from(in_flight).max(self.level * kept)" => "f64::from(in_flight)",
            "policy::aperture::tests::it_is_wide_at_once_when_calls_pile_up_and_narrow_again_when_they_have_long_been_few";
    }
    "endpoints/members.rs" {
        "gated endpoints count as part of the aperture":
            "member.is_eligible() && !member.is_draining()" => "true",
            "endpoints::tests::reach::of_a_large_pool_twenty_endpoints_are_called_and_others_take_the_place_of_those_that_fail";
        "all sidecars call the same part":
            "ring::rank(own, member.address().to_string().as_bytes())" => "ring::rank(0, member.address().to_string().as_bytes())",
            "endpoints::tests::reach::every_sidecar_calls_a_part_of_its_own_and_keeps_it_when_endpoints_come_and_go";
    }
    "policy/ring.rs" {
        "points depend on the endpoint's place in the list":
            "mixed(own ^ mixed(number as u64 + 1))" => "mixed(u64::from(index) ^ mixed(number as u64 + 1))",
            "policy::ring::tests::an_endpoint_that_goes_takes_only_its_own_keys_with_it";
        "the bound on one endpoint's load is none":
            "(calls - 1e-9).ceil().max(1.0) as u32" => "u32::MAX",
            "policy::ring::tests::one_key_that_everybody_asks_for_does_not_overload_its_endpoint";
    }
    "affinity.rs" {
        "all paths are one key":
            "ring::hash(head?.uri.path().as_bytes())" => "ring::hash(b\"/\")",
            "affinity::tests::calls_are_told_apart_by_the_header_the_cookie_or_the_path_that_the_policy_names";
    }
    "pool.rs" {
        "a connection that leads nowhere is used for as long as TCP hopes":
            "connection.streams.unanswered.load(Ordering::Relaxed) >= UNANSWERED_MAX" => "false",
            "pool::tests::a_connection_on_which_three_requests_in_a_row_were_given_up_gets_no_more";
        "each three requests that are given up cost a handshake":
            "now.saturating_duration_since(retired) >= RETIRE_EVERY" => "true",
            "pool::tests::where_all_that_is_asked_comes_too_late_there_is_a_handshake_a_second_at_most";
    }
    "endpoints.rs" {
        "opaque connections have no cap":
            "before < self.config.load().connections_max" => "true",
            "endpoints::tests::opaque_connections_leave_calls_their_places_and_have_a_cap_of_their_own";
    }
    "endpoints/discovered.rs" {
        "an endpoint that is named again is another one":
            "member.endpoint.identity == described.identity" => "false",
            "backend::tests::a_new_policy_keeps_gates_latencies_hedges_and_connections";
    }
    "endpoints/gates.rs" {
        "two workers open two gates where one may be":
            "staying().filter(|member| !member.is_eligible()).count() < cap" => "true",
            "endpoints::tests::workers_that_open_gates_at_the_same_moment_do_not_exceed_the_cap";
        "who is going away is one of those that are left":
            "!member.is_draining()" => "true",
            "endpoints::tests::gates::the_last_that_stays_is_not_ejected_while_others_are_going_away";
        "an endpoint that discovery took away is ejected once more":
            "!self.lists(member)" => "false",
            "endpoints::tests::what_fails_after_discovery_took_an_endpoint_away_does_not_eject_it_once_more";
        "who waits for an endpoint that is ejected goes on waiting":
            "member.ejected.notify_waiters();" => "()",
            "layer::attempt::tests::who_waits_for_an_endpoint_that_is_ejected_hears_of_it_if_it_may_go_elsewhere";
    }
    "endpoints/choice.rs" {
        "who only observes refuses a place at an endpoint":
            "head.is_some() && !observes" => "head.is_some()",
            "endpoints::tests::gates::a_policy_that_observes_refuses_nobody_a_place_at_an_endpoint";
    }
    "endpoints/chosen.rs" {
        "that this sidecar has no certificate is held against endpoints":
            "error.outcome() == HARD" => "true",
            "endpoints::tests::gates::that_this_sidecar_has_no_certificate_is_no_endpoints_failure";
    }
    "learnt/waiting.rs" {
        "one that waits for an hour keeps a place for all that came after it":
            "self.compact();" => "()",
            "learnt::waiting::tests::one_that_waits_for_an_hour_does_not_keep_what_came_after_it_and_has_ended";
    }
    "learnt.rs" {
        "the gate does not hear that a stream has begun":
            "self.gate.answered(&call.ticket);" => "()",
            "endpoints::tests::gates::an_endpoint_that_only_ever_gets_streams_is_taken_back";
        "an opaque connection is no probe that succeeded":
            "self.gate.state() == Phase::HalfOpen" => "false",
            "endpoints::tests::gates::an_endpoint_that_only_ever_gets_opaque_connections_is_taken_back";
        "however many wait for a silent endpoint, it costs no more than one does":
            "quiet_for * self.waiting.count.min(WAITING_MAX)" => "quiet_for",
            "learnt::tests::silence_costs_as_much_as_the_answer_would_that_does_not_come";
        "what an endpoint says of itself does not count":
            "self.load.factor(now)" => "1.0",
            "endpoints::tests::choice::an_endpoint_that_says_it_is_busy_is_spared_until_it_says_otherwise_or_nothing";
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
            "self.turn = self.turn.max(now) + wait.min(TURN_MAX);" => "()",
            "policy::budget::tests::retries_take_turns_and_busy_callers_more_of_them";
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
    "layer/retry.rs" {
        "what is not retried earns nothing":
            "budget.deposit(now)" => "()",
            "layer::retry::tests::what_is_not_retried_earns_hedges_all_the_same";
        "who is turned away by one of many waits as long as that one asks":
            "verdict == Verdict::Overloaded { service: false } && endpoint(result).is_some_and(elsewhere)" => "false",
            "layer::retry::tests::who_is_turned_away_by_one_busy_endpoint_goes_to_another_at_once";
        "the next hop is not told that this is a retry":
            "mark(&mut head, &context);" => "()",
            "layer::retry::tests::each_try_goes_out_whole_and_knows_where_the_others_failed";
        "what was retried below in vain is retried":
            "headers.contains_key(&head::RETRY)" => "false",
            "layer::chain::three_layers_of_retries_are_one";
    }
    "replay.rs" {
        "bodies are kept however long they are":
            "self.kept_bytes + data.len() <= REQUEST_BYTES_MAX" => "true",
            "replay::tests::what_outgrows_its_bound_is_kept_no_longer_and_still_passes_whole";
        "a try that was given up reads on":
            "shared.newest != self.number" => "false",
            "replay::tests::an_attempt_that_was_given_up_takes_nothing_from_the_one_after_it";
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
    "layer/hedge.rs" {
        "who loses a race is judged by it":
            "race.end();" => "()",
            "layer::hedge::tests::whoever_loses_counts_nowhere";
    }
    "policy/deadline.rs" {
        "a black hole has all the time there is":
            "left / tries_left.max(1)" => "left",
            "policy::deadline::tests::a_try_leaves_time_for_the_next_one";
    }
    "layer/deadline.rs" {
        "an answer that stops half-way is waited for for ever":
            "response.body_mut().end_at(timer);" => "drop(timer);",
            "layer::deadline::tests::so_does_an_answer_that_stops_half_way";
    }
    "member.rs" {
        "who begins to listen when its endpoint has just been ejected waits":
            "!was_eligible || self.is_eligible()" => "true",
            "layer::attempt::tests::an_endpoint_that_is_ejected_before_anybody_listens_is_left_all_the_same";
    }
    "exchange.rs" {
        "what comes behind small frames is lost":
            "self.behind = Some(frame)" => "drop(frame)",
            "exchange::tests::a_large_frame_keeps_its_place_and_is_not_copied_together";
        "each small frame goes by itself":
            "first.len() >= SMALL" => "true",
            "exchange::tests::small_frames_that_are_there_at_once_go_as_one";
        "a call's head and body go in two writes":
            "std::mem::take(&mut self.is_fresh)" => "false",
            "exchange::tests::a_call_goes_as_one_write_with_its_body";
    }
    "ahead.rs" {
        "a socket of which more was read than asked for is given away":
            "self.piece.is_none() && self.prefix.is_empty()" => "true",
            "ahead::tests::a_socket_of_which_something_was_read_is_not_given_away";
        "a large message is read in small pieces":
            "this.is_behind = room > 0 && buf.remaining() == 0;" => "",
            "ahead::tests::a_large_message_takes_few_reads_however_small_the_readers_buffer_is";
    }
    "gather.rs" {
        "a frame waits for what never comes":
            "std::mem::take(&mut this.is_followed)" => "this.held.is_some()",
            "gather::tests::the_flush_that_follows_writes";
        "each frame is written by itself":
            "bufs.len() > 1 && length <= PIECE_BYTES" => "false",
            "gather::tests::head_message_and_trailers_go_as_one_write";
    }
    "policy/terms.rs" {
        "what was made of one service's policy is used for another's":
            "Arc::ptr_eq(&made.policy, policy)" => "true",
            "policy::terms::tests::what_is_made_of_a_policy_is_made_once_and_anew_for_another";
    }
    "layer/attempt.rs" {
        "a try is given up at its share with nothing to follow":
            "wait.is_zero()" => "true",
            "layer::attempt::tests::a_try_has_more_than_its_share_while_no_other_is_paid_for";
        "the next hop has as much time as we had":
            "deadline.forward(now)" => "Some(std::time::Duration::from_secs(15))",
            "layer::attempt::tests::the_next_hop_is_told_what_is_left_and_not_asked_when_nothing_is";
    }
    "policy/doomed.rs" {
        "the valve does not count what it refuses":
            "self.calls.add(Counts::FAILURE, now);" => "()",
            "policy::doomed::tests::at_most_half_is_refused_while_nobody_queues_and_all_of_it_while_somebody_does";
    }
    "layer/doomed.rs" {
        "work begins that cannot end in time":
            "!left.is_zero() && left >= typical" => "true",
            "layer::doomed::tests::what_cannot_be_answered_in_time_does_not_begin_and_may_be_tried_elsewhere";
    }
    "policy/inheritance.rs" {
        "of several deadlines under one trace the earliest holds":
            "self.deadline.max(other.deadline)" => "self.deadline.min(other.deadline)",
            "policy::inheritance::tests::nobody_shortens_the_time_of_others_by_reusing_their_trace";
    }
    "layer/inherit.rs" {
        "strangers are believed":
            "context.caller.is_none() || context.upgrade" => "context.upgrade",
            "layer::inherit::tests::a_stranger_leaves_nothing_to_anybody";
        "calls because of a retry are not known to be that":
            "context.is_retry |= inherited.is_retry;" => "()",
            "layer::inherit::tests::a_route_without_a_deadline_inherits_none_but_still_that_it_is_a_retry";
    }
    "trace.rs" {
        "of two traceparents the first counts":
            "values.next().is_none().then_some(first.as_bytes())" => "Some(first.as_bytes())",
            "trace::tests::two_traceparents_mean_nothing";
    }
    "policy/knee.rs" {
        "who gives up before there is an answer says nothing of the app":
            "self.is_long(latency)" => "false",
            "policy::knee::tests::an_app_whose_callers_all_give_up_has_a_queue_and_who_leaves_early_says_nothing";
        "every long time in the app is taken for a queue":
            "is_asked && point.follows(before) && point.mean > QUEUE_SHRANK * before.mean" => "false",
            "policy::knee::tests::a_service_that_is_slower_for_everybody_is_not_cut_to_pieces";
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
    "layer/priority.rs" {
        "a rule for one identity applies to who has none":
            "self.identity.as_ref().is_none_or(is_caller)" =>
            "context.caller.is_none() || self.identity.as_ref().is_none_or(is_caller)",
            "layer::priority::tests::the_first_rule_of_which_all_holds_decides_and_strangers_have_no_identity";
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
    "layer/limit.rs" {
        "the limit leaks a place when its owner leaves in the very moment of its turn":
            "state.policy.abandon(self.id) == Abandoned::Granted" =>
            "{ let _ = state.policy.abandon(self.id); false }",
            "layer::limit::tests::who_leaves_in_the_very_moment_of_its_turn_passes_the_place_on";
        "who gives up before its turn gives back a place that it never had":
            "state.policy.abandon(self.id) == Abandoned::Granted" =>
            "{ let _ = state.policy.abandon(self.id); true }",
            "layer::limit::tests::who_gives_up_before_its_turn_takes_no_place_from_anybody";
        "a limit that only observes lets people wait":
            "state.mode == Mode::Observe" => "false",
            "layer::limit::tests::a_limit_that_observes_lets_everybody_in_and_counts_whom_it_would_not_have";
    }
    "policy/admission.rs" {
        "places that are kept free are given to whoever waits":
            "self.in_flight + self.headroom.kept_from(tier, limit) < limit" => "self.in_flight < limit",
            "policy::admission::tests::what_matters_finds_a_place_once_it_has_had_to_wait_for_what_does_not";
    }
    "policy/admission/streams.rs" {
        "a long poll is a request in the app for ever":
            "now.saturating_duration_since(slot.since) > old" => "false",
            "policy::admission::tests::who_waits_gets_the_place_of_a_long_poll_that_was_found_out";
        "what turns out to be a stream is counted with them beyond their cap":
            "slot.stream || self.streams >= self.config.streams_max" => "slot.stream",
            "policy::admission::tests::streams_are_counted_apart_and_have_a_cap_of_their_own";
    }
    "layer/admission.rs" {
        "an upgraded connection gives its place back with the head of its answer":
            "response.status() == StatusCode::SWITCHING_PROTOCOLS" => "false",
            "layer::admission::tests::an_upgraded_connection_is_a_stream_for_as_long_as_it_lasts_and_one_that_is_refused_is_not";
        "a place is lost that is handed to one who has just gone":
            "drop(decision.who.send(verdict));" => "std::mem::forget(decision.who.send(verdict));",
            "layer::admission::tests::who_leaves_between_the_verdict_and_the_word_of_it_gives_the_place_back";
        "who gives up stays in the queue":
            "self.give_up(None);" => "()",
            "layer::admission::tests::who_leaves_the_queue_leaves_room_in_it";
        "an app that has room again is saturated for good":
            "load.queued > 0 || load.counts.saturated > before" => "load.counts.saturated >= before",
            "layer::admission::tests::that_there_is_no_room_is_told_once_and_that_there_is_again";
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
    "layer/rate_limit.rs" {
        "a stranger is who its headers say":
            "request.context.caller.as_deref().hash(&mut hasher)" =>
            "request.head.headers.get(\"x-forwarded-client-cert\").hash(&mut hasher)",
            "layer::rate_limit::tests::who_has_not_proven_who_it_is_shares_one_limit_whatever_it_says";
    }
    "policy/throttle.rs" {
        "all tiers are dropped alike":
            "((share * all - of_lower) / of_tier).clamp(0.0, DROP_MAX)" => "share",
            "policy::throttle::tests::critical_requests_are_dropped_last";
        "refusals are not forgiven":
            "self.forgive();" => "()",
            "policy::throttle::tests::a_service_that_recovers_is_asked_in_full_within_seconds_and_then_it_is_quiet";
    }
    "layer/throttle.rs" {
        "every failure is taken for overload":
            "response.headers().contains_key(&head::OVERLOAD)" => "true",
            "layer::throttle::tests::only_what_a_sidecar_has_marked_is_taken_for_overload";
        "each call that is dropped is news":
            "reported.episode.observe(throttles, now)?" => "throttles.then_some(Change::Began)?",
            "layer::throttle::tests::that_it_drops_calls_is_told_once_and_that_it_no_longer_does";
    }
    "policy/load.rs" {
        "what an endpoint said is believed for ever":
            "now.saturating_duration_since(self.at) < EXPIRY" => "true",
            "policy::load::tests::it_follows_within_seconds_and_forgets";
    }
    "layer/load.rs" {
        "strangers are told how busy the app is":
            "meshed.then(|| self.admission.clone())" => "Some(self.admission.clone())",
            "layer::load::tests::a_caller_of_the_mesh_hears_of_a_busy_app_and_a_stranger_nothing";
    }
    "layer/observe.rs" {
        "what a policy refused passes for cancelled":
            "Outcome::Failure(Fault::Overload)" => "outcome",
            "layer::observe::tests::what_a_policy_refused_is_a_failure_to_the_caller_and_says_why";
        "a request that was retried is not kept":
            "recorder::has_notes(key)" => "false",
            "layer::observe::tests::a_good_answer_is_kept_with_its_tries_when_it_took_several_and_not_otherwise";
    }
    "pool.rs" {
        "the kernel takes in megabytes of an answer that nobody reads":
            "socket::bound_answers(&stream)" => "std::io::Result::Ok(())",
            "http1::tests::an_answer_that_nobody_reads_fills_no_more_than_a_stream_of_http2";
    }
    "http1.rs" {
        "an app that is still answering is told that its caller has ended":
            "writer.forget()" => "drop(writer)",
            "http1::tests::an_app_that_is_still_answering_is_not_told_that_its_caller_has_ended";
    }
    "mentions.rs" {
        "a caller's deadline is overlooked":
            "found.timeout = true" => "()",
            "mentions::tests::each_header_that_is_read_is_seen_and_ordinary_ones_are_not";
    }
    "recorder.rs" {
        "refusals push out what failed otherwise":
            "(taken & 0xff < most).then_some(taken + 1)" => "Some(taken + 1)",
            "recorder::tests::what_failed_stays_to_be_explained_while_thousands_are_refused";
        "notes stay after their request has ended":
            "open.remove(&names.key).unwrap_or_default()" => "open.get(&names.key).cloned().unwrap_or_default()",
            "recorder::tests::what_was_noted_on_the_way_is_told_with_the_end_by_id_and_by_trace";
        "records are counted and not weighed":
            "self.records.len() > count_max || self.bytes > bytes_max" => "self.records.len() > count_max",
            "recorder::tests::the_slow_do_not_push_out_the_failed_and_nobody_makes_it_grow";
    }
    "policy/stale.rs" {
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
    "layer/stale.rs" {
        "what has gone since is given again":
            "terms.is_none() && Terms::outdate(head.status, &head.headers)" => "false",
            "layer::fallback::tests::a_page_of_which_a_later_answer_says_that_it_is_gone_or_secret_is_not_given_again";
        "what was read before it was written to is given again":
            "shared.change(|stale| stale.forget(&self.url));" => "()",
            "layer::fallback::tests::a_page_that_was_cut_is_too_long_or_was_written_to_is_not_given_again";
        "every answer of the app that is no success is covered up":
            "matches!(status.as_u16(), 500 | 502..=504)" => "status.as_u16() >= 400",
            "layer::fallback::tests::a_page_that_has_passed_whole_is_given_again_with_its_age_and_marked";
    }
    "layer/alternate.rs" {
        "another service is asked when it is too late":
            "spare.context.deadline.is_over(Instant::now())" => "false",
            "layer::fallback::tests::an_alternate_that_fails_too_changes_nothing_and_nobody_is_asked_too_late";
    }
    "layer/fallback.rs" {
        "what may have been done is done by another service as well":
            "!spare.is_idempotent() && !failure.reached_nobody" => "false",
            "layer::fallback::tests::what_may_have_been_done_is_not_done_by_somebody_else_as_well";
        "who stands in for another has somebody who stands in for him":
            "request.context.stands_in" => "false",
            "layer::fallback::tests::who_stands_in_for_another_has_nobody_who_stands_in_for_him";
        "what the caller did wrong is covered up":
            "facts.blame != Blame::Downstream" => "true",
            "layer::fallback::tests::what_the_caller_did_wrong_and_what_the_app_itself_answered_are_not_covered_up";
    }
    "policy/fault.rs" {
        "a fault on purpose does not end by itself":
            "now >= self.until" => "false",
            "policy::fault::tests::it_is_over_at_its_end_whatever_the_clock_says_by_then";
        "a fault meets callers that it does not name":
            "said.callers.is_empty()" => "true",
            "policy::fault::tests::only_the_callers_that_it_names_meet_it";
    }
    "layer/fault.rs" {
        "a black hole swallows any number of calls":
            "self.held.fetch_add(1, Ordering::Relaxed) >= HELD_MAX" => "{ self.held.fetch_add(1, Ordering::Relaxed); false }",
            "layer::fault::tests::no_more_calls_are_held_than_may_be_and_the_others_pass";
        "who is held hears nothing of a policy that is gone":
            "!self.shared.faults.load().has(&self.fault)" => "false",
            "layer::fault::tests::who_is_held_is_let_go_when_the_fault_ends_or_nobody_says_so_any_more";
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
    "prober/https.rs" {
        "an app is asked to prove who it is":
            "Ok(ServerCertVerified::assertion())" => "Err(rustls::CertificateError::UnknownIssuer.into())",
            "prober::tests::an_https_probe_believes_whoever_answers";
    }
    "layer/authorize.rs" {
        "a connection on which nobody asks again keeps a right that is taken away":
            "self.changed.send_replace(());" => "()",
            "layer::authorize::tests::connections_on_which_nobody_asks_again_end_with_the_right_to_them";
        "a caller is who its headers say":
            "context.caller.clone()" =>
            "request.head.headers.get(\"x-weir-caller\").and_then(|said| said.to_str().ok()).map(Into::into)",
            "layer::authorize::tests::who_may_not_call_is_told_so_in_its_own_protocol_and_headers_prove_nothing";
    }
    "layer/authorize/right.rs" {
        "a call that has lost its right goes on for twice as long":
            "timeout_at(end, self.policy_changes())" => "timeout_at(end + grace, self.policy_changes())",
            "layer::authorize::tests::a_call_that_loses_its_right_may_end_and_is_cut_when_it_does_not";
        "a call that has got its right back is cut all the same":
            "continue 'granted" => "()",
            "layer::authorize::tests::a_call_that_loses_its_right_may_end_and_is_cut_when_it_does_not";
    }
    "body.rs" {
        "whoever does not read its answer may go on sending":
            "right.poll_passing(cx)" => "Poll::<Error>::Pending",
            "layer::authorize::tests::what_is_sent_ends_with_the_right_to_send_it_whether_or_not_the_answer_is_read";
        "an answer on which nothing passes is not cut":
            "right.poll_waiting(cx)" => "Poll::<Error>::Pending",
            "layer::authorize::tests::an_answer_that_goes_on_is_cut_in_its_own_protocol_and_an_audit_cuts_none";
    }
    "policy/episode.rs" {
        "what pauses is told as over":
            "passed(*last) >= OVER" => "true",
            "policy::episode::tests::what_lasts_is_told_once_and_its_end_when_it_has_not_come_back";
    }
    "backend.rs" {
        "copies have no places of their own":
            "in_flight >= MIRRORED_MAX" => "false",
            "layer::dispatch::tests::no_more_than_64_copies_are_under_way_and_the_rest_is_left_out_and_counted";
    }
    "backend/stacks.rs" {
        "a breaker that a policy has no more looks open for ever":
            "gone.reconfigure(None);" => "()",
            "backend::tests::a_breaker_that_a_new_policy_has_no_more_does_not_look_open_for_ever";
        "a new policy begins with new breakers":
            "breakers\n                .remove(name)" => "None::<Arc<breaker::Shared>>",
            "backend::tests::a_new_policy_keeps_breakers_open_and_what_retries_have_spent";
        "a new policy begins with new hedges":
            "hedges.remove(name)" => "None",
            "backend::tests::a_new_policy_keeps_gates_latencies_hedges_and_connections";
    }
    "rules.rs" {
        "the last match applies":
            "conditions.find(|it| it.matches(head, path, grpc))" =>
            "conditions.rfind(|it| it.matches(head, path, grpc))",
            "rules::tests::the_first_that_matches_applies";
        "weights do not count":
            "left.checked_sub(weight)" => "left.checked_sub(weight).filter(|_| false)",
            "rules::tests::each_is_picked_as_often_as_its_weight_says";
        "paths are compared as they are sent":
            "path::canonical(head.uri.path())" => "Some(Cow::Borrowed(head.uri.path().as_bytes()))",
            "rules::tests::paths_are_compared_in_canonical_form";
    }
    "policy/terms.rs" {
        "a rule's time for one try does not hold":
            "retries.per_try_timeout = per_try.get()" => "()",
            "policy::terms::tests::what_a_rule_does_not_say_is_the_policys";
    }
    "layer/dispatch.rs" {
        "a redirect is temporary, whatever the rule says":
            "Own::Redirect(redirect.status(), location)" => "Own::Redirect(http::StatusCode::FOUND, location)",
            "layer::dispatch::tests::a_redirect_calls_nobody";
        "what no rule is for goes where the first says":
            "found.and_then(|place| self.acts.get(place))" => "self.acts.get(found.unwrap_or(0))",
            "layer::dispatch::tests::what_no_rule_matches_is_404_and_what_has_no_backend_is_500";
    }
    "layer/mirror.rs" {
        "a copy may be retried by whoever gets it":
            "context.is_retry = true" => "()",
            "layer::dispatch::tests::a_copy_has_the_body_too_and_neither_delays_its_call_nor_fails_it";
        "all calls are copied":
            "random % self.denominator >= self.numerator" => "false",
            "layer::dispatch::tests::a_share_of_none_copies_nothing";
    }
    "layer/deadline.rs" {
        "the deadline of a policy holds beside that of a rule":
            "self.limit.filter(|_| !by_rule)" => "self.limit",
            "layer::dispatch::tests::a_timeout_of_the_rule_takes_the_place_of_the_policys";
    }
    "layer/retry.rs" {
        "a code that a rule names is worth no other try":
            "return Some(Verdict::Named)" => "return Some(Verdict::Final)",
            "layer::dispatch::tests::a_code_that_the_rule_names_is_tried_again_whatever_the_method_and_no_other_is";
    }
    "mesh.rs" {
        "whoever tries all ports has an admission for each":
            "unnamed() < UNNAMED_MAX" => "true",
            "mesh::tests::a_scan_of_all_ports_costs_a_few_of_them";
        "pods that are called by their addresses are remembered for ever":
            "backends.remove(&of_pod(*address));" => "()",
            "mesh::tests::a_pod_that_has_long_not_been_called_is_forgotten_with_all_that_was_learnt_of_it";
        "a new policy begins with full buckets":
            "made.standing.clone()" => "{ let new = Standing::default(); new.reconfigure(policy); new }",
            "mesh::tests::a_new_policy_keeps_the_buckets_and_who_is_in_the_app";
        "connections that are open keep a right that is taken away":
            "standing.reconfigure(policy_of(&workload, *port))" => "()",
            "mesh::tests::a_new_policy_that_takes_a_right_away_holds_for_connections_that_are_open";
        "a new policy does not know who is in the app":
            "before.admission.clone()" => "Arc::new(admission::Shared::new(&policy.limits))",
            "mesh::tests::a_new_policy_keeps_the_buckets_and_who_is_in_the_app";
    }
    "cni/plugin.rs" {
        "a pod starts although its rules could not be written":
            "redirection.install(&namespace).map_err(not_redirected)?" => "drop(redirection.install(&namespace))",
            "cni::plugin::tests::a_pod_of_ours_is_not_passed_unless_its_rules_are_written";
        "a pod of which nobody can be asked is none of ours":
            "pod::redirection(&asked(&meant, network)?)" => "asked(&meant, network).map_or(Ok(None), |said| pod::redirection(&said))",
            "cni::plugin::tests::a_pod_of_which_nobody_can_say_whose_it_is_does_not_start";
    }
    "cni/pod.rs" {
        "a pod's name may lead elsewhere at the API server":
            "is_path || !text.bytes().all(is_name)" => "is_path",
            "cni::plugin::tests::names_that_would_lead_elsewhere_at_the_api_server_are_refused";
    }
    "cni/conflist.rs" {
        "our entry comes before the pod has addresses":
            "plugins.push(entry.json())" => "plugins.insert(0, entry.json())",
            "cni::conflist::tests::a_chain_gets_our_entry_as_its_last";
    }
    "cni/node.rs" {
        "what was a single plugin stays a chain":
            "kept.exists() && !single.exists()" => "false",
            "cni::node::tests::a_single_plugin_is_put_back_as_it_was_to_the_byte";
    }
    "cni/repair.rs" {
        "a pod that nobody makes anew is deleted":
            "has_ended && is_owned" => "has_ended",
            "cni::repair::tests::only_a_pod_whose_validator_said_so_and_that_somebody_makes_anew_is_stranded";
    }
    "redirect/table.rs" {
        "a range of ports has no end":
            "after(last)" => "None::<Vec<u8>>",
            "redirect::tests::kernel::the_kernel_is_told_what_nft_would_have_told_it";
    }
    "redirect/wanted.rs" {
        "rules that were changed pass a check":
            "there == wanted" => "true",
            "redirect::tests::kernel::a_pods_rules_are_written_from_outside_and_a_change_of_them_shows";
    }
};
