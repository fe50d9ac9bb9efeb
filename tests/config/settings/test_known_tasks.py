"""Known tasks from local files: as the authors distribute them, as the hub has them, real ones."""

import os
import re
from pathlib import Path

import pytest

from lkd_tune.config.settings.known_tasks import GLUE_FOLDERS, TASKS
from lkd_tune.config.settings.task import TaskSettings
from lkd_tune.data.loading import check_data, count_labels, label_names, load_split

DATA = Path(os.environ.get("LKD_SHARED", Path(__file__).parents[4] / "shared")) / "data"


def _task(name, file, **more):
    return TaskSettings(**{"name": name, "train": str(file), "dev": str(file), **more})


# The headers of GLUE's own files, and what a row of them says; CoLA's files have none.
DISTRIBUTED = {
    "cola": ("", "gj04\t1\t\tA"),
    "sst2": ("sentence\tlabel", "A\t1"),
    "mrpc": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t70\t72\tA\tB"),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\tA\tB\t5.000",
    ),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "7\t21\t22\tA\tB\t1"),
    "mnli": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
        "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t31193\t31193n\ttravel\t( A )\t( B )\t(S A)\t(S B)\tA\tB\tentailment\tneutral",
    ),
    "qnli": ("index\tquestion\tsentence\tlabel", "0\tA\tB\tnot_entailment"),
    "rte": ("index\tsentence1\tsentence2\tlabel", "0\tA\tB\tnot_entailment"),
    "wnli": ("index\tsentence1\tsentence2\tlabel", "0\tA\tB\t1"),
}


@pytest.mark.parametrize("name", GLUE_FOLDERS)
def test_glue_s_own_files(name, tmp_path):
    header, row = DISTRIBUTED[name]
    path = tmp_path / "train.tsv"
    row = re.sub(r"(^|\t)A(?=\t|$)", r'\1"A', row)  # a quotation mark is part of a sentence
    path.write_text("".join(f"{line}\n" for line in (header, row, row) if line), "utf-8")
    task = _task(name, path)
    assert check_data(task) == []
    split = load_split(task, "train", cache=tmp_path / "c")
    assert split.text == ['"A', '"A']
    assert split.pair == (["B", "B"] if "pair" in TASKS[name]["columns"] else None)
    assert split.label == [5.0 if name == "stsb" else 1] * 2


@pytest.mark.parametrize("name", GLUE_FOLDERS)
def test_files_with_the_hub_s_columns(name, tmp_path):
    columns = [*TASKS[name]["columns"].values(), "label", "idx"]
    path = tmp_path / "train.csv"
    path.write_text(f"{','.join(columns)}\n{','.join('AB'[: len(columns) - 2])},1,0\n")
    task = _task(name, path)
    assert check_data(task) == []
    split = load_split(task, "train", cache=tmp_path / "c")
    assert (split.text, split.label) == (["A"], [1])


def test_the_broken_lines_of_qqp_are_left_out(tmp_path):
    header, row = DISTRIBUTED["qqp"]
    path = tmp_path / "train.tsv"
    path.write_text(f'{header}\n{row}\n5\t1\t2\tA\tB\n"\tB, going on\t0\n{row}\n')
    split = load_split(_task("qqp", path), "train", cache=tmp_path / "c")
    assert (split.pair, split.label) == (["B", "B"], [1, 1])


def test_columns_that_are_named_stand_for_themselves(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2,gold_label\nA,B,contradiction\n")
    columns = {"text": "sentence2", "pair": "sentence1", "label": "gold_label"}
    split = load_split(_task("mnli", path, columns=columns), "train", cache=tmp_path / "c")
    assert (split.text, split.pair, split.label) == (["B"], ["A"], [2])


@pytest.mark.parametrize(
    ("name", "width", "names"),
    [("cnn_dailymail", 2, ["out", "in"]), ("squad_v2", 2, None), ("stsb", 1, None)],
)
def test_no_data_are_asked_for_what_the_kind_says(name, width, names):
    task = TaskSettings(name=name, data="nobody/nothing", train_examples=5)
    assert (count_labels(task), label_names(task)) == (width, names)


REAL = [
    ("cola", "cola/dev.tsv", {}, 527),
    ("sst2", "sst2/dev.tsv", {}, 872),
    ("sst2", "sst2_glue/dev.tsv", {}, 872),
    ("sst2", "sst2_glue/train.tsv.gz", {}, 60_614),
    ("rte", "rte/dev_even.tsv", {}, 139),
    ("stsb", "stsb_subset/dev.tsv", {}, 625),
    ("mnli", "klue_nli_part/dev_part.json", {}, 1962),
    ("squad", "squad11/dev.json.gz", {}, 1746),
    ("squad_v2", "xquad/dev-es.json", {}, 187),
    ("wnut17", "wnut17/dev.conll", {}, 1009),
    ("goemotions", "goemotions/dev.tsv", {}, 5426),
    ("own", "korsts/dev.tsv",
     {"kind": "regression", "columns": {"text": "sentence1", "pair": "sentence2",
                                        "label": "score"}}, 1500),
    ("own", "nsmc_subset/dev.tsv", {"columns": {"text": "document"}}, 3000),
    ("own", "wikitext2/valid.txt", {"kind": "masked_lm"}, 3760),
    ("own", "wikitext2_train/train.txt.gz", {"kind": "masked_lm"}, 34_006),
]  # fmt: skip


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data in {DATA}")
@pytest.mark.parametrize(("name", "file", "settings", "rows"), REAL, ids=[r[1] for r in REAL])
def test_real_files_are_read_whole(name, file, settings, rows, tmp_path):
    task = _task(name, DATA / file, **settings)
    assert check_data(task) == []
    split = load_split(task, "dev", cache=tmp_path / "c")
    assert len(split.text) == len(split.label) == rows
    # WikiText has empty lines between its paragraphs.
    assert all(split.text) or task.kind == "masked_lm"
    assert split.pair is None or all(split.pair)
