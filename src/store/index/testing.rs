//! Where the tests of the index open it: in a database of this machine, or, all of them once more, in a store elsewhere.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use super::{Index, artifacts, images, letters, listing, tests, triggers, usage, webhooks};
use crate::store::keyspaces::Keyspaces;

/// The keyspaces that a directory stands for.
pub(crate) type Opener = Box<dyn Fn(&Path) -> Arc<dyn Keyspaces>>;

thread_local! {
    static ELSEWHERE: RefCell<Option<Opener>> = const { RefCell::new(None) };
}

/// The index of a directory.
pub(super) fn open(dir: &Path) -> Index {
    ELSEWHERE.with_borrow(|elsewhere| match elsewhere {
        Some(open) => Index::over(open(dir)).unwrap(),
        None => Index::open(dir).unwrap(),
    })
}

/// From now on this thread's tests have their index there.
pub(crate) fn elsewhere(open: Opener) {
    ELSEWHERE.set(Some(open));
}

/// What every index owes, wherever it is.
pub(crate) const ALL: [fn(); 32] = [
    artifacts::tests::what_is_delivered_again_is_put_once_and_settled,
    artifacts::tests::versions_are_shown_in_order_in_whatever_order_they_were_made,
    artifacts::tests::a_forgotten_run_keeps_nothing,
    images::tests::the_latest_image_of_each_run_survives_with_a_tally_that_fits,
    images::tests::the_row_of_a_run_takes_its_image_away,
    images::tests::an_image_that_changed_or_went_missing_does_not_fit_the_tally,
    images::tests::a_new_set_stands_in_place_of_a_damaged_one_and_half_of_it_never_adds_up,
    letters::tests::what_is_put_again_is_there_once_and_what_became_of_it_stays_until_its_run_is_forgotten,
    letters::tests::pages_go_on_where_they_ended_and_conditions_are_kept,
    letters::tests::a_run_keeps_so_many_and_a_fork_none_of_those_it_began_with,
    listing::tests::a_workspace_and_a_workflow_of_one_name_have_lists_of_their_own,
    listing::tests::pages_go_up_from_an_id_as_they_go_down,
    listing::tests::runs_are_listed_once_however_often_and_in_whatever_order_they_are_put,
    tests::rows_come_back_newest_first_in_pages,
    tests::filters_look_at_a_bounded_number_of_rows_and_go_on_where_they_stopped,
    tests::a_key_answers_until_it_expires_also_when_its_run_is_forgotten,
    tests::a_file_that_is_over_takes_its_runs_and_no_others,
    tests::a_file_stays_for_as_long_as_a_run_in_it_lives_and_its_class_says,
    tests::an_erased_run_is_gone_at_once_and_named_until_its_events_are,
    tests::registering_is_idempotent_and_a_version_never_changes,
    tests::concurrent_registrations_of_one_document_make_one_version,
    tests::runs_are_found_by_their_business_key_and_by_the_time_of_their_start,
    tests::a_row_from_before_there_were_business_keys_is_read,
    tests::a_run_that_is_forgotten_refers_to_nothing,
    tests::a_file_goes_before_its_time_unless_a_run_in_it_may_go_on,
    triggers::tests::rows_are_changed_as_one_with_their_place_on_the_agenda,
    usage::tests::a_run_counts_once_for_its_workspace_and_day_whatever_is_put_again,
    usage::tests::what_was_used_lately_is_known_by_the_minute,
    usage::tests::sums_go_when_they_are_old,
    webhooks::tests::what_happened_to_a_review_is_told_once_until_its_run_is_erased_and_then_never,
    webhooks::tests::webhooks_are_bounded_and_what_was_given_up_is_tried_again_or_goes_with_them,
    webhooks::tests::notices_stand_in_line_across_restarts_and_those_of_an_erased_run_leave_it,
];
