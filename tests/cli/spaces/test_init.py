"""The command `init`: from a data file to a space that `check` accepts."""

from tests.support.tiny import make_csv, make_teacher


def test_from_a_file_to_a_space(called, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_csv(tmp_path / "reviews", 64)
    make_csv(tmp_path / "reviews", 64, name="dev")
    make_teacher(tmp_path / "t")
    code, out, _ = called("init", "reviews/train.csv", "--teacher", "t")
    assert code == 0
    assert "kind: classification (2 different labels: 0, 1)" in out
    assert "lkd-tune check --space reviews.yaml" in out

    code, out, _ = called("check", "--space", "reviews.yaml")
    assert code == 0
    assert "the space is valid" in out

    code, _, err = called("init", "reviews/train.csv")
    assert code == 2
    assert err == "lkd-tune: reviews.yaml: exists; name another file with --to\n"
