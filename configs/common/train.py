"""Settings of a training; override any value on the command line as ``train.<key>=...``."""

train = dict(
    output_dir="./output",
    # Weights to start from ("" = random), or to evaluate with --eval-only.
    init_checkpoint="",
    # False: keys that are missing, unexpected or of another shape are listed and skipped.
    init_strict=True,
    # An Inheritance, instead of init_strict, says what a detector takes over from a pre-training.
    init_inherit=None,
    # Let --resume go on with other training data than the run had so far.
    allow_new_data=False,
    # Optimizer steps; null if epochs sets the length.
    max_iter=90_000,
    # Passes over the training set, whatever its size; max_iter, then null, follows from it.
    epochs=None,
    # A negative seed is drawn anew, logged, and saved with the checkpoints.
    seed=0,
    # "auto": a GPU if there is one, else the CPU.
    device="auto",
    # Batches per optimizer step; the loss is their mean.
    accumulate=1,
    # "float16" (GPU, with loss scaling) or "bfloat16" (GPU and CPU).
    amp=dict(enabled=False, dtype="float16"),
    clip_grad=dict(enabled=False, max_norm=0.1, norm_type=2.0),
    # decay rises as decay * (1 - exp(-step / warmup)).
    ema=dict(enabled=False, decay=0.9998, warmup=2000),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False),
    # Further hooks by name, like hooks=dict(decay=L(WeightDecaySchedule)(...)); null drops one.
    hooks=dict(),
    # Experiment trackers besides metrics.json and TensorBoard's files: "mlflow", "wandb".
    writers=[],
    checkpointer=dict(period=5000, max_to_keep=10),
    eval_period=5000,
    # Write a page of errors (docs/error_report.md) beside the predictions after --eval-only.
    error_report=False,
    log_period=20,
    cudnn_benchmark=False,
)
