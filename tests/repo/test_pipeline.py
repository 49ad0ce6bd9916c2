"""`dvc.yaml`, the stages' code and the command line are one."""

import ast
import re
from pathlib import Path

import grimp
import pytest

from odn import source
from odn.config import Config
from odn.modes import MODES
from odn.stages.settings import TOLD
from repo.pipeline import ROOT, STAGES, Stage, help_of, stages_of_docstrings, stages_of_dvc

DECLARED = stages_of_dvc()
WRITTEN = stages_of_docstrings()
COMPONENTS = [path for path in sorted((ROOT / "components").glob("*.py")) if path.stem not in {"__init__", "image"}]
each_stage = pytest.mark.parametrize("stage", DECLARED.values(), ids=DECLARED)


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Return which module of odn imports which; imports for type checkers run no code."""
    return grimp.build_graph("odn", exclude_type_checking_imports=True, cache_dir=None)


def test_stages_and_modules_are_one_set() -> None:
    """Each stage of dvc.yaml has its file in odn/stages, and each stage file is in dvc.yaml."""
    assert set(DECLARED) == set(WRITTEN)


@each_stage
def test_stage_runs_the_command_of_its_name(stage: Stage) -> None:
    """A stage's command is `odn` and the stage's own name, with nothing but paths and indices behind it."""
    assert re.fullmatch(rf"odn {stage.name}( --[a-z]+ [\w{{}}./]+)*", stage.command)


@each_stage
def test_command_of_the_stage_exists(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """`odn STAGE --help` answers, and knows each flag that dvc.yaml passes."""
    shown = help_of(capsys, stage.name)
    assert [flag for flag in re.findall(r"--[a-z]+", stage.command) if flag not in shown] == []


@each_stage
def test_docstring_lists_what_dvc_lists(stage: Stage) -> None:
    """What a stage says it reads, writes and takes from the config is what dvc.yaml tracks."""
    written = WRITTEN[stage.name]
    assert (written.reads, written.writes, written.config) == (stage.reads, stage.writes, stage.config)


@each_stage
def test_a_stage_depends_on_the_code_that_it_runs(stage: Stage) -> None:
    """By the digests that the stage `code` makes, of which every stage but itself has its own."""
    assert stage.code == (frozenset() if stage.name == "code" else {f"work/code/{stage.name}.txt"})


def test_settings_that_are_written_for_a_stage_are_tracked() -> None:
    """Each that a stage is told so is one that `settings` depends on, with its section or alone."""
    settings = DECLARED["settings"]
    told = {name for stage in TOLD for name in DECLARED[stage].config}
    assert {name for name in told if not {name, name.partition(".")[0]} & settings.config} == set()
    assert settings.writes == {f"work/settings/{stage}.json" for stage in TOLD}


@pytest.fixture(scope="module")
def code() -> source.Source:
    """Read the source code."""
    return source.read_source(ROOT / "src/odn")


@pytest.mark.parametrize("mode", MODES)
def test_the_digests_cover_what_a_stage_imports(mode: str, code: source.Source, imports: grimp.ImportGraph) -> None:
    """A change in any module that a stage imports, however far down, changes its digests; but for those that change no result."""
    digests, strategies = code.digests(mode=mode), [MODES[mode].strategy]
    packages = {name for name in code.imports if not code.imports[name]}  # `import odn.data.x` does not name `odn.data` in the graph
    for stage in source.STAGES:
        seen, ahead = {"odn"}, [f"odn.stages.{stage}"]
        while ahead:
            module = ahead.pop()
            silent = module in source.SHOWN or module.startswith("odn.tracking")
            if module in seen or (silent and stage not in source.TELLING):
                continue
            seen.add(module)
            ahead += [*imports.find_modules_directly_imported_by(module), *(strategies if module == source.LOADER else ())]
        assert seen - packages - {"odn"} == set(digests[stage]) - packages - {"odn"}


@each_stage
def test_only_certifying_stages_read_test(stage: Stage) -> None:
    """The test split is chosen by nothing: only `evaluate` and `export` certify on it, and `report` shows images of it."""
    reads_test = any("work/prepared/test".startswith(path) for path in stage.reads)
    assert not reads_test or stage.name in {"evaluate", "export", "report"}


@each_stage
def test_stage_uses_only_the_settings_that_it_lists(stage: Stage) -> None:
    """A section of the config that a stage's file reads is one whose change runs the stage again."""
    tree = ast.parse((STAGES / f"{stage.name}.py").read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "config"}
    listed = {name.partition(".")[0] for name in stage.config}
    assert (used & set(Config.model_fields)) - listed == set()
    narrow = {name for name in stage.config if "." in name}  # such as search.mode: nothing else of its section is read
    texts = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    attributes = {text.removeprefix("config.") for text in texts if text.startswith("config.")}
    sections = {name.partition(".")[0] for name in narrow}
    assert {name for name in attributes if name.partition(".")[0] in sections and "." in name} <= narrow


@each_stage
def test_no_two_stages_write_the_same_path(stage: Stage) -> None:
    """A path has one stage that writes it, and lies in no folder that another stage writes."""
    mine = {path.format(depth=1) for path in stage.writes}
    others = {path.format(depth=1) for other in DECLARED.values() if other is not stage for path in other.writes}
    assert [(path, other) for path in mine for other in others if f"{other}/".startswith(f"{path}/")] == []


def test_components_steps_and_stages_are_one_set() -> None:
    """Each stage has a step and a component; `prepare` does `fetch` and `open`; `code` and `settings` are DVC's, `configure` Kubeflow's."""
    components = {path.stem for path in COMPONENTS}
    tree = ast.parse((ROOT / "src/odn/steps.py").read_text())
    steps = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    assert components == steps == set(DECLARED) - {"code", "fetch", "open", "settings"} | {"configure"}


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.stem)
def test_component_is_a_wrapper(path: Path) -> None:
    """It has the name of its file, and at most 20 lines below its signature: what it does is in `odn.steps`."""
    (function,) = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    assert function.name == path.stem
    assert function.end_lineno is not None
    assert function.end_lineno - function.body[0].lineno < 20
