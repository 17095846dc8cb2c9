"""Answers outlive their worker, and go when their slice is safe."""

from pathlib import Path

from stages.journal import Journal, forget


def test_another_worker_knows_them(tmp_path: Path) -> None:
    Journal(tmp_path / "a").add("k", [75.0, None])
    found = Journal(tmp_path / "a")
    found.refresh()
    assert found.known == {"k": [75.0, None]}
    assert not Journal(tmp_path / "b").known


def test_a_torn_or_foreign_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "answers-x.jsonl").write_bytes(b'["k", [1.0, null]]\n\xff\n{}\n7\n["l", [2.0, null]]\n["m", [3.')
    found = Journal(tmp_path)
    found.refresh()
    assert found.known == {"k": [1.0, None], "l": [2.0, None]}


def test_what_is_safe_elsewhere_is_forgotten(tmp_path: Path) -> None:
    """Its own file goes; what others have noted since is read when the next slice begins."""
    mine, other = Journal(tmp_path / "mine"), Journal(tmp_path / "other")
    mine.add("k", 1)
    other.add("l", 2)
    forget(tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir()) and list((tmp_path / "other").iterdir())
    Journal(tmp_path / "mine").add("m", 3)
    mine.refresh()
    assert mine.known == {"m": 3}


def test_without_a_folder_it_remembers_in_the_process() -> None:
    journal = Journal(None)
    journal.add("k", 1)
    journal.refresh()
    assert journal.known == {"k": 1}
