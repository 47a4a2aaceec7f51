from __future__ import annotations

import csv
import math
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from <<cookiecutter.package_name>> import purchases
from <<cookiecutter.package_name>>.database import connect, literal
from <<cookiecutter.package_name>>.purchases import (
    ColumnMapping,
    DataError,
    import_log,
    log_path,
    read_manifest,
    simulate,
)
from <<cookiecutter.package_name>>.settings import Settings

MAPPING = ColumnMapping(customer="who", date="when", amount="how much")
UNTIL = date(2026, 1, 1)

GOOD = ["0001,1997-01-01,29.33", "0001,1997-01-18 10:30:00+02:00,0", "7,1997-02-01,5"]
BAD = {
    "no customer": " ,1997-01-01,1.0",
    "unreadable date": "2,someday,1.0",
    "unreadable amount": "2,1997-01-01,$3",
    "negative amount": "2,1997-01-01,-3",
    "date in the future": "2,2997-01-01,1.0",
    "repeated row": GOOD[0],
    "unreadable line": "2,1997-01-01,1.0,one,too,many",
}


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("who,when,how much", *lines)) + "\n", encoding="utf-8")
    return path


def log_rows(settings: Settings) -> list[tuple[str, datetime, float]]:
    return duckdb.sql(f"FROM read_parquet('{log_path(settings)}')").fetchall()


def test_the_same_seed_simulates_the_same_log(tmp_path: Path) -> None:
    logs = [
        simulate(Settings(home=tmp_path / name), 200, seed, UNTIL, replace=False)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert logs[0] == logs[1]
    assert logs[0].fingerprint != logs[2].fingerprint


def test_a_simulated_log_is_as_large_and_as_long_as_asked(settings: Settings) -> None:
    manifest = simulate(settings, 300, 1, UNTIL, replace=False)
    assert manifest.customers == 300
    assert len(log_rows(settings)) == manifest.rows > 300
    assert datetime(2024, 1, 2) <= manifest.oldest_event < manifest.newest_event
    assert manifest.newest_event < datetime(2026, 1, 1)
    assert settings.as_of == manifest.newest_event
    assert min(amount for _, _, amount in log_rows(settings)) > 0


def test_a_log_is_imported_row_by_row(settings: Settings, tmp_path: Path) -> None:
    manifest = import_log(settings, write_csv(tmp_path / "log.csv", *GOOD), MAPPING, False, False)
    assert log_rows(settings) == [
        ("0001", datetime(1997, 1, 1), 29.33),
        ("0001", datetime(1997, 1, 18, 8, 30), 0.0),
        ("7", datetime(1997, 2, 1), 5.0),
    ]
    assert (manifest.rows, manifest.customers, manifest.rejected) == (3, 2, {})
    assert settings.as_of == datetime(1997, 2, 1)


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_set_aside_with_its_reason(
    settings: Settings, tmp_path: Path, reason: str
) -> None:
    source = write_csv(tmp_path / "log.csv", *GOOD, BAD[reason])
    manifest = import_log(settings, source, MAPPING, False, False)
    assert manifest.rejected == {reason: 1}
    assert manifest.rows == len(GOOD)
    with (settings.data_dir / "rejected.csv").open(encoding="utf-8") as file:
        (rejected,) = csv.DictReader(file)
    assert rejected["reason"] == reason
    for value in BAD[reason].split(","):
        assert value.strip() in rejected["row"]


@pytest.mark.parametrize("name", ["source", "Source", 'a "quoted" name', "it's"])
def test_a_column_of_any_name_may_stand_beside(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "log.csv"
    pd.DataFrame(
        {"who": ["1", "2", "3"], "when": "1997-01-01", "how much": 1.0, name: "web"}
    ).to_csv(path, index=False)
    assert import_log(settings, path, MAPPING, False, False).rows == 3


def test_an_import_that_is_cut_off_leaves_the_old_log(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(tmp_path / "log.csv", *GOOD)
    import_log(settings, source, MAPPING, False, False)
    before = log_rows(settings), read_manifest(settings)

    def cut_off(_: Path) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(purchases, "_sha256", cut_off)
        with pytest.raises(KeyboardInterrupt):
            import_log(settings, write_csv(tmp_path / "b.csv", GOOD[0]), MAPPING, False, True)
        with pytest.raises(KeyboardInterrupt):
            simulate(settings, 100, 1, UNTIL, replace=True)
    assert (log_rows(settings), read_manifest(settings)) == before
    assert {path.name for path in settings.data_dir.iterdir()} == {
        "manifest.json",
        "purchases.parquet",
    }


def test_a_log_that_nothing_describes_is_not_overwritten_unasked(
    settings: Settings, tmp_path: Path
) -> None:
    source = write_csv(tmp_path / "log.csv", *GOOD)
    import_log(settings, source, MAPPING, False, False)
    settings.data_manifest.unlink()
    with pytest.raises(DataError, match="holds purchases without manifest"):
        simulate(settings, 100, 1, UNTIL, replace=False)
    assert import_log(settings, source, MAPPING, False, replace=True).rows == len(GOOD)


def test_repeated_rows_can_be_kept(settings: Settings, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "log.csv", *GOOD, GOOD[0])
    manifest = import_log(settings, source, MAPPING, keep_duplicates=True, replace=False)
    assert manifest.rows == 4
    assert manifest.rejected == {}


def test_dates_of_the_future_can_be_kept(settings: Settings, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "log.csv", *GOOD, BAD["date in the future"])
    manifest = import_log(settings, source, MAPPING, False, replace=False, keep_future=True)
    assert (manifest.rejected, settings.as_of) == ({}, datetime(2997, 1, 1))


def test_what_counts_as_now_may_lie_ahead(settings: Settings, tmp_path: Path) -> None:
    ahead = settings.model_copy(update={"fixed_clock": datetime(2997, 1, 1)})
    source = write_csv(tmp_path / "log.csv", *GOOD, BAD["date in the future"])
    assert import_log(ahead, source, MAPPING, False, replace=False).rejected == {}


def test_a_clean_import_leaves_no_old_rejected_file(settings: Settings, tmp_path: Path) -> None:
    dirty = write_csv(tmp_path / "dirty.csv", *GOOD, BAD["negative amount"])
    import_log(settings, dirty, MAPPING, False, False)
    assert (settings.data_dir / "rejected.csv").exists()
    import_log(settings, write_csv(tmp_path / "clean.csv", *GOOD), MAPPING, False, replace=True)
    assert not (settings.data_dir / "rejected.csv").exists()


def test_a_log_is_imported_from_parquet(settings: Settings, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "who": [1, 2],
            "when": pd.to_datetime(["1997-01-01T12:00+02:00", "1997-01-02T00:00+00:00"], utc=True),
            "how much": [1, 2],
        }
    )
    frame.to_parquet(tmp_path / "log.parquet")
    import_log(settings, tmp_path / "log.parquet", MAPPING, False, False)
    assert log_rows(settings) == [
        ("1", datetime(1997, 1, 1, 10), 1.0),
        ("2", datetime(1997, 1, 2), 2.0),
    ]


def test_dates_of_another_form_need_their_format(settings: Settings, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "log.csv", "1,31/12/1997,2")
    with pytest.raises(DataError, match=r"'31/12/1997'.*--date-format"):
        import_log(settings, source, MAPPING, False, False)
    with_format = replace(MAPPING, date_format="%d/%m/%Y")
    assert import_log(settings, source, with_format, False, False).newest_event == datetime(
        1997, 12, 31
    )


def test_a_missing_column_names_those_found(settings: Settings, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "log.csv", *GOOD)
    with pytest.raises(DataError, match=r"no column 'amount'; it has 'who', 'when', 'how much'"):
        import_log(settings, source, replace(MAPPING, amount="amount"), False, False)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "is no file"),
        ("empty.csv", b"", "cannot be read|no column"),
        ("header.csv", b"who,when,how much\n", "no usable row"),
        ("broken.parquet", b"PAR1 but not really", "cannot be read"),
    ],
)
def test_a_useless_file_is_refused_and_the_old_log_stays(
    settings: Settings, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    before = import_log(settings, write_csv(tmp_path / "log.csv", *GOOD), MAPPING, False, False)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        import_log(settings, tmp_path / name, MAPPING, False, replace=True)
    assert read_manifest(settings) == before
    assert len(log_rows(settings)) == before.rows


def test_an_imported_log_is_overwritten_only_when_asked(settings: Settings, tmp_path: Path) -> None:
    import_log(settings, write_csv(tmp_path / "log.csv", *GOOD), MAPPING, False, False)
    with pytest.raises(DataError, match=r"imported from log\.csv: add --replace"):
        simulate(settings, 100, 1, UNTIL, replace=False)
    assert simulate(settings, 100, 1, UNTIL, replace=True).kind == "simulated"


def test_reading_before_any_data_says_what_to_run(settings: Settings) -> None:
    with pytest.raises(DataError, match="data simulate"):
        log_path(settings)


def test_a_shift_turns_what_recency_says(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    shift = UNTIL - timedelta(days=200)
    simulate(settings, 2_000, 1, UNTIL, replace=False, shifts=[shift])

    def buys_soon(at: date, recent: bool) -> float:
        """The share that buys in 30 days of those who bought at most, or more than, 20 days ago."""
        with connect(settings) as db:
            (share,) = db.execute(
                f"""
                SELECT avg(soon::INTEGER) FROM (
                    SELECT bool_or(purchased_at >= $at) AS soon,
                        max(purchased_at) FILTER (purchased_at < $at) AS last
                    FROM read_parquet({literal(log_path(settings))})
                    WHERE purchased_at < $at::TIMESTAMP + INTERVAL 30 DAY
                    GROUP BY customer_id)
                WHERE last > $at::TIMESTAMP - INTERVAL 80 DAY
                    AND (last > $at::TIMESTAMP - INTERVAL 20 DAY) = $recent
                """,
                {"at": at, "recent": recent},
            ).fetchone() or (math.nan,)
        return float(share)

    before, after = shift - timedelta(days=60), shift + timedelta(days=100)
    assert buys_soon(before, recent=True) > buys_soon(before, recent=False)
    assert buys_soon(after, recent=True) < buys_soon(after, recent=False)


def test_a_shift_outside_the_simulated_days_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the shift on 2030-01-01 lies outside the simulated days"):
        simulate(Settings(home=tmp_path), 50, 1, UNTIL, replace=False, shifts=[date(2030, 1, 1)])
    assert not (tmp_path / "data").exists()
