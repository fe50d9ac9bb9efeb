"""The command `check`: what it prints of data, and the tasks it may be given."""

from tests.support.tiny import make_csv, make_space


def test_it_prints_what_the_data_are(called, tmp_path):
    make_space(tmp_path)
    code, out, err = called("check", "--space", tmp_path / "space.yaml")
    assert code == 0
    head, train, dev, *_ = (line.split() for line in out.splitlines()[1:])
    assert head[:3] == ["split", "file", "rows"]
    assert train[:3] == ["train", "train.csv", "64"]
    assert dev[:2] == ["dev", "dev.csv"]
    assert "LABEL_0 50%, LABEL_1 50%" in out
    assert "note: " in err
    assert "with 64 rows, differences below 0.08" in err


def test_known_tasks_are_checked_as_they_would_be_searched(called, tmp_path):
    make_space(tmp_path)
    for folder, header in (("CoLA", "sentence"), ("RTE", "sentence1")):
        for name in ("train", "dev"):
            rows = make_csv(tmp_path / "glue", 8, name=name).read_text().splitlines()[1:]
            path = tmp_path / "glue" / folder / f"{name}.tsv"
            path.parent.mkdir(exist_ok=True)
            lines = [row.replace(",", "\t") for row in rows]
            path.write_text("\n".join([f"{header}\tlabel", *lines]) + "\n")
    at = ("--space", tmp_path / "space.yaml", "--data", tmp_path / "glue")
    code, out, _ = called("check", *at, "--task", "cola")
    assert code == 0
    assert "cola, inputs of up to 32 tokens, scored by matthews" in out

    # Each of several tasks; the first lacks a column.
    code, out, err = called("check", *at, "--task", "rte,cola")
    assert code == 2
    assert "== cola" in out
    assert "the space is valid" in out
    assert "lkd-tune: rte: " in err
    assert "has no column 'sentence2'" in err

    code, _, err = called("check", "--space", tmp_path / "space.yaml", "--data", tmp_path)
    assert code == 2
    assert "needs --task NAME" in err
