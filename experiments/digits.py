"""The main job: three models on real digits, the sweep over w, the report. `make digits` runs it.

python -m experiments.digits
"""

import copy
from pathlib import Path

from absl import flags

from cfg_jax import config as configs
from cfg_jax.evaluation import report, sweep
from cfg_jax.training import trainer
from experiments import cli

CONFIG = cli.define_config("configs/digits.py")
RUNS = flags.DEFINE_string("runs", "runs", "where digits-p0.1, digits-p0.2, digits-p0.5 and digits-sweep go")
P_UNCOND = flags.DEFINE_string("p_uncond", "0.1,0.2,0.5", "a model is trained for each, whatever config.p_uncond is")
FEWER_STEPS = flags.DEFINE_string("fewer_steps", "4,8", "T of further cells of the first model, for the claim about T")


def main():
    config = CONFIG.value
    workdir = Path(RUNS.value) / "digits-sweep"
    ps = cli.numbers(P_UNCOND.value, float, "p_uncond")
    runs = {Path(RUNS.value) / f"digits-p{p:g}": changed(config, p_uncond=p) for p in ps}
    fewer_steps = cli.numbers(FEWER_STEPS.value, int, "fewer_steps") if FEWER_STEPS.value else []
    for model in runs.values():
        configs.check(model)
        for w in model.eval.w:
            configs.check_w(w, model.p_uncond, "config.eval.w")
    for num_steps in fewer_steps:
        configs.check_sampler(changed(config, **{"sampler.num_steps": num_steps}).sampler)
    for run, model in runs.items():
        trainer.train(model, run)
    for num_steps in fewer_steps:
        fewer = changed(config, **{"sampler.num_steps": num_steps})
        sweep.sweep(fewer, list(runs)[:1], config.eval.w[:1], workdir)
    sweep.sweep(config, list(runs), config.eval.w, workdir)
    print(report.write(workdir))
    print(f"{workdir}/report.html has the slider over w")


def changed(config, **fields):
    """A copy of the config with some of its fields set."""
    config = copy.deepcopy(config)
    config.update_from_flattened_dict(fields)
    return config


if __name__ == "__main__":
    cli.run(main)
