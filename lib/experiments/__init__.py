"""The experiments, one file per script; `config/` has their flags. No experiment knows another."""

from lib.runs.command_lines import Experiment

EXPERIMENTS = {
    "train": Experiment("lib.experiments.config.train:TrainConfig", "lib.experiments.train:train"),
    "eval": Experiment("lib.experiments.config.eval:EvalConfig", "lib.experiments.eval:eval", "lib.plots.confusion:figures"),
    "data": Experiment("lib.experiments.config.data:DataConfig", "lib.experiments.data:data", "lib.plots.images:figures"),
    "probe": Experiment(
        "lib.experiments.config.probe:ProbeConfig", "lib.experiments.probe:probe", "lib.plots.probe:figures"
    ),
    "stitch": Experiment(
        "lib.experiments.config.stitch:StitchConfig", "lib.experiments.stitch:stitch", "lib.plots.stitch:figures"
    ),
    "similarity": Experiment(
        "lib.experiments.config.similarity:SimilarityConfig",
        "lib.experiments.similarity:similarity",
        "lib.plots.similarity:figures",
    ),
    "ood_detector": Experiment(
        "lib.experiments.config.ood_detector:OodDetectorConfig", "lib.experiments.ood_detector:ood_detector"
    ),
    "stitch_ood": Experiment(
        "lib.experiments.config.stitch_ood:StitchOodConfig",
        "lib.experiments.stitch_ood:stitch_ood",
        "lib.plots.energies:figures",
    ),
    "ood_layers": Experiment(
        "lib.experiments.config.ood_layers:OodLayersConfig",
        "lib.experiments.ood_layers:ood_layers",
        "lib.plots.ood_layers:figures",
    ),
    "ncg": Experiment("lib.experiments.config.ncg:NcgConfig", "lib.experiments.ncg:ncg", "lib.plots.ncg:figures"),
    "projections": Experiment(
        "lib.experiments.config.projections:ProjectionsConfig",
        "lib.experiments.projections:projections",
        "lib.plots.filters:figures",
    ),
    "reinit": Experiment(
        "lib.experiments.config.reinit:ReinitConfig", "lib.experiments.reinit:reinit", "lib.plots.filters:reinit"
    ),
    "tables": Experiment("lib.experiments.config.tables:TablesConfig", "lib.experiments.tables:text"),
    "study": Experiment("lib.experiments.config.study:StudyConfig", "lib.experiments.study:study"),
}
