"""What the warm dbt process knows of a project whose files change under it."""

from __future__ import annotations

from tests.projects import PEOPLE, TESTS, VISITS, Bench


def test_no_check_is_lost_or_kept_when_files_change(bench: Bench) -> None:
    """After models and their tests changed together, as often as they like, the checks are those of the files."""
    refers = """
  - name: visits
    description: Visits.
    columns:
      - name: visit_id
        description: Whose.
        data_tests:
          - relationships: {arguments: {to: ref('people'), field: person_id}}
"""
    always = {"accepted_values_people_kind__guest__member", "nobody_is_slow_people_"}
    related = "relationships_visits_visit_id__person_id__ref_people_"
    for number in range(6):
        is_related = number % 2 == 0
        bench.write(bench.models / "models.yml", TESTS + (refers if is_related else ""))
        bench.write_model("people", f"{PEOPLE}\n-- {number}\n")
        bench.write_model("visits", f"{VISITS}\n-- {number // 2}\n")
        assert set(bench.engine.dbt.parse().tests) == always | ({related} if is_related else set())


def test_a_setting_that_nobody_knows_is_refused(bench: Bench) -> None:
    """A misspelled config of an entity is named with its file and the known ones, before anything is built."""
    bench.write_model("people", PEOPLE.replace("unique_key=", "on_mising='keep', unique_key="))
    error = bench.fail()
    assert (error.exit_code, error.message) == (
        2,
        "dbt: people: unknown config 'on_mising' in dbt_project/models/people.sql",
    )
    assert "on_missing" in (error.hint or "")
