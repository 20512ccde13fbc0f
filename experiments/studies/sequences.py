"""Guidance of autoregressive models: a token at a time, it is not guidance of the sequence.

With p(y | x) of whole sequences known by enumeration, the guided joint is p(x) p(y | x)^s / Z. Guided a token at a
time, each conditional is p(x_t | x_<t) p(y | x_<=t)^s over a normaliser of its own, and what is drawn is another law.
The same holds for a temperature of the conditionals. Both agree where the tokens are independent.

python -m experiments.studies.sequences --out=runs/studies
"""

from absl import flags
from matplotlib.figure import Figure

from cfg_jax import plots
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery
from experiments.studies import token_laws as sequences

OUT = gallery.define_out("sequences")
S = flags.DEFINE_string("s", "0,0.5,1,2,3,5,8", "guidance scales, s = 1 + w")
MODELS = {"2 bits": (2, 2), "8 tokens, 4 long": (8, 4)}  # the vocabulary and the length


@plots.styled
def main():
    scales = gallery.positive(S.value, "s", 0, float)
    rows = [["s = 1 + w", *(f"{name}: {kind}" for name in MODELS for kind in ("guidance", "temperature"))],
            ["---:"] * (1 + 2 * len(MODELS))]  # fmt: skip
    curves = {name: [] for name in rows[0][1:]}
    for s in scales:
        cells = [f"{s:g}"]
        for name, shape in MODELS.items():
            log_p, log_y = sequences.random_model(*shape)
            guided = sequences.distance(
                sequences.guided_by_token(log_p, log_y, s)[0], sequences.guided_joint(log_p, log_y, s)
            )
            tempered = sequences.distance(
                sequences.tempered_by_token(log_p, s), s * log_p - sequences.logsumexp(s * log_p)
            )
            for kind, found in (("guidance", guided), ("temperature", tempered)):
                curves[f"{name}: {kind}"].append(found)
                cells.append(f"{found:.4f}")
        rows.append(cells)
    figure = Figure()
    axes = figure.subplots()
    for name, found in curves.items():
        axes.plot(scales, found, "o-", label=name)
    axes.set(xlabel="s = 1 + w, or the power of a temperature", ylabel="total variation, by token against joint")
    axes.set_title("Sequences of known law, by enumeration: nothing is drawn")
    axes.legend()
    joint, stepwise, by_langevin = sequences.continuous(3.0)
    lines = [["s = 3", "variance of x_1", "of x_2", "covariance"], ["---", "---:", "---:", "---:"]]
    for name, cov in (
        ("guided joint", joint),
        ("guided token by token", stepwise),
        ("Langevin on the joint", by_langevin),
    ):
        lines.append([name, *(f"{v:.3f}" for v in (cov[0, 0], cov[1, 1], cov[0, 1]))])
    table = (
        f"{markdown(rows)}\nA continuous model of two tokens, 20,000 samples of Langevin dynamics:\n\n{markdown(lines)}"
    )
    gallery.write(OUT.value, "sequences", figure, table, "Total variation between drawing by token and the joint.")


if __name__ == "__main__":
    cli.run(main)
