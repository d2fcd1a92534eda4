"""The experiments, one file per script; `config/` has their flags. No experiment knows another."""

from lib.runs.command_lines import Experiment

EXPERIMENTS = {
    "train": Experiment("lib.experiments.config.train:TrainConfig", "lib.experiments.train:train"),
    "eval": Experiment("lib.experiments.config.eval:EvalConfig", "lib.experiments.eval:eval"),
    "data": Experiment("lib.experiments.config.data:DataConfig", "lib.experiments.data:data"),
    "probe": Experiment("lib.experiments.config.probe:ProbeConfig", "lib.experiments.probe:probe"),
    "stitch": Experiment("lib.experiments.config.stitch:StitchConfig", "lib.experiments.stitch:stitch"),
    "similarity": Experiment("lib.experiments.config.similarity:SimilarityConfig", "lib.experiments.similarity:similarity"),
    "ood_detector": Experiment(
        "lib.experiments.config.ood_detector:OodDetectorConfig", "lib.experiments.ood_detector:ood_detector"
    ),
    "stitch_ood": Experiment("lib.experiments.config.stitch_ood:StitchOodConfig", "lib.experiments.stitch_ood:stitch_ood"),
    "ood_layers": Experiment("lib.experiments.config.ood_layers:OodLayersConfig", "lib.experiments.ood_layers:ood_layers"),
    "ncg": Experiment("lib.experiments.config.ncg:NcgConfig", "lib.experiments.ncg:ncg"),
    "projections": Experiment(
        "lib.experiments.config.projections:ProjectionsConfig", "lib.experiments.projections:projections"
    ),
    "reinit": Experiment("lib.experiments.config.reinit:ReinitConfig", "lib.experiments.reinit:reinit"),
    "tables": Experiment("lib.experiments.config.tables:TablesConfig", "lib.experiments.tables:text"),
    "study": Experiment("lib.experiments.config.study:StudyConfig", "lib.experiments.study:study"),
}
