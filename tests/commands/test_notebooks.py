import pytest

from tests.running import ROOT

NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_a_notebook_runs_from_top_to_bottom(path):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    notebook = nbformat.read(path, as_version=4)
    committed = [
        output.get("data", {}).get("image/png") for cell in notebook.cells for output in cell.get("outputs", [])
    ]
    assert any(committed), "commit it with the outputs of a run"
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=path.parent)
    assert not [o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "error"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_command_in_a_notebook_ends_and_the_kernel_lives(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    train = f"%run -m experiments.train -- --config=configs/digits.py --workdir={tmp_path / 'run'}"
    sources = [
        "import jax; jax.devices()", f"{train} --config.p_uncond=2", f"{train} --config.seed=-1",
        *[f"%run experiments/report.py --sweep={tmp_path}"] * 2, "print('alive')",
    ]  # fmt: skip
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", allow_errors=True)
    client.execute(cwd=NOTEBOOKS[0].parents[2])
    said = ["".join(o.get("text", "") + o.get("evalue", "") for o in cell.outputs) for cell in notebook.cells]
    wanted = ("", "is no probability", "config.seed=-1", *["no finished cells"] * 2, "alive")
    for text, want in zip(said, wanted, strict=True):
        assert want in text and "Duplicate" not in text, said
