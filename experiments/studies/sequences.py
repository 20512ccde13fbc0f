"""Guidance of autoregressive models: token by token it is not guidance of the sequence.

With p(y | x) of whole sequences known by enumeration, the guided joint is p(x) p(y | x)^s / Z. Guided token by token,
each conditional is p(x_t | x_<t) p(y | x_<=t)^s over its own normaliser, and another law is drawn. The same holds for a
temperature of the conditionals. Both agree where the tokens are independent.

python -m experiments.studies.sequences --out=runs/studies
"""

from cfg_jax import plots
from cfg_jax.text import markdown
from experiments.helpers import cli, gallery
from experiments.studies import token_laws as laws

OUT = gallery.define_out("sequences")
S = cli.define_numbers("s", "0,0.5,1,2,3,5,8", "guidance scales, s = 1 + w", low=0)
MODELS = {"2 bits": (2, 2), "8 tokens, 4 long": (8, 4)}  # the vocabulary and the length


@plots.styled
def main() -> None:
    curves = {}
    for name, shape in MODELS.items():
        log_p, log_y = laws.random_model(*shape)
        curves[f"{name}: guidance"] = [
            laws.distance(laws.guided_by_token(log_p, log_y, s)[0], laws.guided_joint(log_p, log_y, s)) for s in S.value
        ]
        curves[f"{name}: temperature"] = [
            laws.distance(laws.tempered_by_token(log_p, s), laws.normalised(s * log_p)) for s in S.value
        ]
    labels = {"xlabel": "s = 1 + w, or the power of a temperature", "ylabel": "total variation, by token against joint"}
    figure = gallery.curves(S.value, curves, "Sequences of known law, by enumeration: nothing is drawn", **labels)
    rows = [["s = 1 + w", *curves]]
    for s, *distances in zip(S.value, *curves.values(), strict=True):
        rows.append([f"{s:g}", *(f"{distance:.4f}" for distance in distances)])
    lines = [["s = 3", "variance of x_1", "of x_2", "covariance"]]
    names = "guided joint", "guided token by token", "Langevin on the joint"
    for name, cov in zip(names, laws.continuous(3.0), strict=True):
        lines.append([name, *(f"{v:.3f}" for v in (cov[0, 0], cov[1, 1], cov[0, 1]))])
    table = (
        f"{markdown(rows, ())}\nA continuous model of two tokens, 20,000 samples of Langevin dynamics:\n\n"
        + markdown(lines)
    )
    gallery.write(OUT.value, "sequences", figure, table, "Total variation between drawing by token and the joint.")


if __name__ == "__main__":
    cli.run(main)
