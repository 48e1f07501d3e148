"""Plausible human mistakes, one line each: the suite must see them all. `mutants.py` makes them, one by one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """In `surgery/FILE`, `old` (which stands there once) becomes `new`. `first` are the tests of `tests/` that are to
    see it, a folder, a file or one test; where they don't, those of the room may, the folder of the same name as the
    file's."""

    file: str
    old: str
    new: str
    first: str

    @property
    def room(self) -> str:
        """The package that the file is of."""
        return self.file.split("/")[0]


SPEC = (
    Mutation(
        "spec/selector.py",
        "index = value + num_blocks if value < 0 else value",
        "index = value + num_blocks - 1 if value < 0 else value",
        "plan/test_lower.py",
    ),
    Mutation("spec/selector.py", "if 0 <= index < num_blocks", "if 0 <= index <= num_blocks", "messages"),
    Mutation(
        "spec/selector.py", "step is not None and step < 1", "step is not None and step < 0", "spec/test_schema.py"
    ),
    Mutation("spec/document.py", "if key.text in found:", "if key in found:", "messages"),
    Mutation(
        "spec/vary.py", "if not 0 < len(values) <= MAX_VAL", "if not 1 < len(values) <= MAX_VAL", "spec/test_vary.py"
    ),
    Mutation(
        "spec/vary.py", "for value in variable.samples[1:]:", "for value in variable.samples[2:]:", "spec/test_vary.py"
    ),
    Mutation(
        "spec/beside_vary.py",
        "for variable in variables if not variable.cases]",
        "for variable in variables]",
        "spec/test_schema.py",
    ),
)

PLAN = (
    Mutation("plan/schedule.py", "count(layers, times * loops)", "count(layers, times)", "plan/test_schedule.py"),
    Mutation("plan/lower.py", "(len(positions) - 1) // 2", "len(positions) // 2", "plan/test_lower.py"),
    Mutation(
        "plan/edits.py",
        "left.append(Group(members, combine, loops))",
        "left.append(Group(members))",
        "plan/test_lower.py",
    ),
    Mutation(
        "plan/replacements.py",
        'name.startswith(f"{item.component}.")',
        'name.startswith(f"{item.component}")',
        "plan/test_lower.py",
    ),
    Mutation("plan/cost.py", " if item.index in plans[0].schedule(item.stack).used]", "]", "plan/test_cost.py"),
    Mutation("plan/backends.py", "last not in order[:-1]", "last not in order", "plan/test_backends.py"),
    Mutation("plan/invariants.py", "(is_last and isinstance(item, Layer))", "is_last", "messages"),
)

TRACING = (
    Mutation(
        "tracing/guards.py",
        "return (value.ndim, value.dtype, value.device)",
        "return (value.dtype, value.device)",
        "graph/test_guards.py",
    ),
    Mutation("tracing/guards.py", "tuple(value.shape) if isinst", "value.ndim if isinst", "graph/test_guards.py"),
    Mutation(
        "tracing/memo.py",
        " or has_forward_hooks(module):",
        ":",
        "tracing/test_memo.py",
    ),
    Mutation(
        "tracing/arguments.py", "self.value is other.value", "self.value == other.value", "tracing/test_arguments.py"
    ),
    Mutation("tracing/in_place.py", "changed = tensor.clone()", "changed = tensor", "tracing/test_tracer.py"),
    Mutation(
        "tracing/regions.py",
        "if name in READS_CONTENTS:",
        "if func in READS_CONTENTS:",
        "graph/test_partial.py",
    ),
)

GRAPH = (
    Mutation("graph/combine.py", "(len(outputs) - 1) * wide", "len(outputs) * wide", "graph/test_oracle.py"),
    Mutation(
        "graph/combine.py",
        "wide = before.float() if before.dtype in HALF_TYPES else before",
        "wide = before",
        "graph/test_combine.py",
    ),
    Mutation(
        "graph/rewrite.py",
        "if node in self.placed or node in self.ambiguous:",
        "if node in self.placed:",
        "graph/test_own_context.py",
    ),
    Mutation("graph/replace.py", "mean(dim=output.channel_dim,", "mean(dim=-2,", "graph/test_oracle.py"),
    Mutation(
        "graph/rewritten_forward.py",
        "if num_decisions or reads",
        "if num_decisions > 1 or reads",
        "graph/test_guards.py",
    ),
    Mutation(
        "graph/partial.py",
        "known is not value and not (is_number(value) and known == value)",
        "known is not value and not isinstance(value, torch.Tensor) and known != value",
        "graph/test_partial.py",
    ),
    Mutation("graph/replace.py", "stand_in.train(original.training)", "stand_in", "graph/test_variant.py"),
)

CHECKPOINT = (
    Mutation(
        "checkpoint/byte_plan.py", "piece.file is last.file and piece.start", "piece.start", "checkpoint/test_law.py"
    ),
    Mutation(
        "checkpoint/fitted_blocks.py",
        "if scale != 1.0 and module",
        "if scale > 1.0 and module",
        "checkpoint/test_law.py",
    ),
    Mutation(
        "checkpoint/config_fields.py",
        "if layer in listed]",
        "if position in listed]",
        "checkpoint/test_config_fields.py",
    ),
    Mutation(
        "checkpoint/values.py",
        "[segment.mean_start : segment.mean_start + segment.num_rows]",
        "[: segment.num_rows]",
        "checkpoint/test_values.py",
    ),
    Mutation(
        "checkpoint/adapter_names.py",
        "if index >= self.stacks",
        "if index > self.stacks",
        "checkpoint/test_adapter_names.py",
    ),
    Mutation("checkpoint/compile_plan.py", 'f"{layer}" == index]', 'f"{place}" == index]', "checkpoint/test_law.py"),
    Mutation("checkpoint/folding.py", "if scales == {0.0}:", "if 0.0 in scales:", "checkpoint/test_carriers.py"),
)

ACTIVATIONS = (
    Mutation(
        "pipelines/shares.py",
        "/ num_train_timesteps_of(scheduler)",
        "/ (num_train_timesteps_of(scheduler) - 1)",
        "activations/test_trajectories.py",
    ),
    Mutation(
        "activations/trajectories.py",
        "        self.number = 0\n        self.on",
        "        self.on",
        "activations/test_trajectories.py",
    ),
    Mutation(
        "activations/output_sums.py",
        "self.squares[number] - self.total[number] * step",
        "self.squares[number] - step * step",
        "activations/test_output_sums.py",
    ),
    Mutation(
        "activations/output_sums.py",
        "if not self.shifted.isdisjoint(range(first, first + len(values))):",
        "if first in self.shifted:",
        "activations/test_output_sums.py",
    ),
    Mutation("activations/token_masks.py", "(1, 1 - TOKEN_NDIM)", "(1, -1)", "activations/test_token_masks.py"),
    Mutation(
        "activations/branches.py",
        "weights[chosen] = mask[chosen]",
        "weights[chosen] = 1",
        "activations/test_output_sums.py",
    ),
    Mutation(
        "activations/row_sums.py",
        "torch.where(chosen, positions, -1).max(1)",
        "positions.max(0)",
        "activations/test_recorder.py",
    ),
)

EVALUATE = (
    Mutation("metrics/frechet.py", "np.sqrt(len(values) - 1)", "np.sqrt(len(values))", "metrics/test_frechet.py"),
    Mutation(
        "metrics/kernel_distance.py",
        "block[rows, start + rows] = 0",
        "block[rows, rows] = 0",
        "metrics/test_kernel_distance.py",
    ),
    Mutation(
        "metrics/intervals.py",
        "np.sqrt((num_groups - 1) / num_groups *",
        "np.sqrt(1 / num_groups *",
        "metrics/test_intervals.py",
    ),
    Mutation(
        "metrics/rank_correlation.py",
        "chosen = rng.integers(0, num, (draws, num))",
        "chosen = rng.permuted(np.tile(np.arange(num), (draws, 1)), axis=1)",
        "metrics/test_rank_correlation.py",
    ),
    Mutation("metrics/paired.py", "2 * (side - 1) - at", "2 * side - 1 - at", "metrics/test_paired.py"),
    Mutation("metrics/paired.py", "& (lengths > 0)", "", "metrics/test_paired.py"),
    Mutation("metrics/feature_cache.py", '"batch_size": batch_size,', "", "metrics/test_feature_cache.py"),
    Mutation(
        "metrics/clip_score.py",
        "texts[prompt] for prompt in prompts",
        "texts[prompt] for prompt in known",
        "metrics/test_clip.py",
    ),
)

EXPORT = (
    Mutation(
        "export/factors.py", "(abs(power - factor), -power)", "(abs(power - factor), power)", "export/test_factors.py"
    ),
    Mutation("export/lokr_config.py", '"use_fnmatch": True,', '"use_fnmatch": False,', "export/test_lokr_config.py"),
    Mutation(
        "export/name_patterns.py",
        'name.startswith(f"{path}.")',
        "name.startswith(path)",
        "export/test_lokr_config.py",
    ),
    Mutation("export/contributions.py", "len(of) / sum(", "1 / sum(", "export/test_contributions.py"),
    Mutation(
        "publish/pipeline_files.py", "if not copies and file.size", "if file.size", "publish/test_pipeline_files.py"
    ),
    Mutation("publish/pipeline_files.py", "if not stat.S_ISREG(", "if stat.S_ISDIR(", "publish/test_pipeline_files.py"),
    Mutation(
        "export/check_config.py",
        "(asked.algo, asked.factor) != (trained.algo, trained.factor)",
        "asked.algo != trained.algo",
        "export/test_check_config.py",
    ),
)

HONESTY = (  # what is refused, or believed, of others' files and models
    Mutation(
        "checkpoint/layer_names.py",
        "if len(places) != 1:",
        "if not places:",
        "checkpoint/test_header_metadata.py",
    ),
    Mutation(
        "checkpoint/header_metadata.py",
        "for key in metadata if OWN_HASH.fullmatch(key)",
        "for key in metadata if OWN_HASH.match(key)",
        "checkpoint/test_header_metadata.py",
    ),
    Mutation(
        "checkpoint/misfits.py",
        "wanted.get(name, 0) < num_rows(value.shape)",
        "name in wanted and wanted[name] < num_rows(value.shape)",
        "checkpoint/test_misfits.py",
    ),
    Mutation("tracing/places.py", "if offset < at else", "if offset > at else", "tracing/test_turns.py"),
    Mutation("tracing/stack_code.py", "return name in optional", "return True", "tracing/test_stack_code.py"),
    Mutation("kept.py", "os.geteuid() and not state", "os.geteuid() or not state", "anatomy/test_known.py"),
    Mutation(
        "spec/yaml_faults.py", "_depth(lines[below - 1]) <= depth", "_depth(lines[below - 1]) < depth", "messages"
    ),
    Mutation(
        "pipelines/pretrained.py", '"use_safetensors": True', '"use_safetensors": None', "pipelines/test_pretrained.py"
    ),
    Mutation(
        "checkpoint/remap.py",
        "if 0 < len(unknown) < len(found.modules):",
        "if 1 < len(unknown) < len(found.modules) - 1:",
        "commands/test_remap.py",
    ),
    Mutation("export/trainers.py", "needed in family.has) else", "True) else", "export/test_trainer_table.py"),
)

WINDOWS = (
    Mutation("plan/atoms.py", "share < high - EDGE or high == 1.0", "share < high - EDGE", "plan/test_windowed.py"),
    Mutation("plan/atoms.py", "(end is None or step < end)", "(end is None or step <= end)", "plan/test_windowed.py"),
    Mutation("plan/windowed.py", "cells[0] if len(cells) == 1 else None", "cells[0]", "plan/test_windowed.py"),
    Mutation("plan/cost.py", "(1.0 if atom.branch is None else 0.5)", "1.0", "plan/test_windowed.py"),
    Mutation(
        "pipelines/sampler_clock.py",
        "position // order - self.first // order",
        "position // order",
        "graph/test_windows.py::test_a_run_that_starts_midway_is_where_its_scheduler_is",
    ),
    Mutation(
        "pipelines/sampler_clock.py",
        "self.num_forwards + 1 if position == self.position else 0",
        "0",
        "graph/test_windows.py::test_separate_calls_of_the_branches_are_told_apart",
    ),
    Mutation("graph/split_rows.py", "[torch.argsort(order)]", "[order]", "graph/test_split_rows.py"),
    Mutation(
        "pipelines/timestep_convention.py",
        "[max(map(convention.share_of, numbers)) for",
        "[min(map(convention.share_of, numbers)) for",
        "graph/test_window_families.py::test_windows_of_time_steps_and_branch_are_the_edit_by_hand",
    ),
    Mutation(
        "pipelines/guidance.py",
        "UNCONDITIONAL if each else CONDITIONAL for each in is_shared",
        "CONDITIONAL for each in is_shared",
        "graph/test_window_families.py::test_a_pipeline_that_takes_one_prompt_is_asked_twice",
    ),
    Mutation(
        "pipelines/probes.py",
        "return value + (number + 1)",
        "return value + number",
        "graph/test_window_families.py::test_a_call_with_embeddings_is_asked_with_embeddings",
    ),
    Mutation(
        "plan/planned.py",
        "means.transformer != part:",
        "means.transformer == part:",
        "commands/test_second_transformer.py",
    ),
    Mutation(
        "graph/removed_blocks.py",
        "for plan in plans)\n    removed",
        "for plan in plans[:1])\n    removed",
        "graph/test_windows.py::test_weights_are_shared_and_only_what_no_atom_runs_is_gone",
    ),
)

SWEEPS = (  # which point is meant, in which order it adds up, and what is said of it
    Mutation(
        "spec/spec_name.py",
        "if SIGN not in text or is_there(Path(text)):",
        "if SIGN not in text:",
        "spec/test_spec_name.py",
    ),
    Mutation("spec/spec_name.py", "[part] if part in values else", "", "spec/test_spec_name.py"),
    Mutation("plan/sweep.py", "written += filled.items", "written = filled.items", "plan/test_sweep.py"),
    Mutation("plan/cumulative_order.py", "range(len(values))[::-1]", "range(len(values))", "plan/test_sweep.py"),
    Mutation("plan/cumulative_order.py", 'yield -score["value"] if', 'yield score["value"] if', "plan/test_sweep.py"),
    Mutation("plan/cumulative_order.py", '["key"] != ERROR', '["key"] == ERROR', "plan/test_sweep.py"),
    Mutation(
        "metrics/significance.py",
        "float(differences[0] < 0)",
        "float(differences[0] <= 0)",
        "metrics/test_significance.py",
    ),
    Mutation(
        "metrics/welch.py",
        "float(difference.value < 0)",
        "float(difference.value <= 0)",
        "metrics/test_significance.py",
    ),
    Mutation("experiment/marks.py", "and not score.metric.flag", "", "experiment/test_marks.py"),
    Mutation("experiment/marks.py", "max(by_prompt, by_point)", "by_prompt", "experiment/test_marks.py"),
    Mutation(
        "experiment/averages.py", "all(key in scores for scores in by_row)", "True", "experiment/test_averages.py"
    ),
)

TRAINING = (  # what is learnt, from what, and that a killed run is the same run
    Mutation(
        "training/loop.py",
        'self.average.load_state_dict(state["average"])',
        'list(state["average"])',
        "training/test_loop.py",
    ),
    Mutation("training/loop.py", "(step * count + micro)", "(step + micro)", "training/test_loop.py"),
    Mutation(
        "training/loop.py", "weights.get(name, 1.0) * value", "weights.get(name, 1.0) + value", "training/test_loop.py"
    ),
    Mutation(
        "training/loop.py", "run.load_(course.best_weights)", "list(course.best_weights)", "training/test_loop.py"
    ),
    Mutation(
        "training/state.py", "torch.save(dict(state), beside)", "torch.save(dict(state), path)", "training/test_loop.py"
    ),
    Mutation(
        "training/features.py", "<= sigmas * values.std()", "<= sigmas + values.std()", "training/test_features.py"
    ),
    Mutation(
        "training/healing_loss.py",
        "self.teacher, match.stack, match.original",
        "self.teacher, match.stack, match.place",
        "training/test_healing_loss.py",
    ),
    Mutation(
        "training/held_out.py", "2**16 * (number + 1) + seed", "2**16 * number + seed", "training/test_call_form.py"
    ),
    Mutation("training/noised_batches.py", "and is_dropped else", "else", "training/test_call_form.py"),
    Mutation("training/trained_parts.py", "!= own - 1 or beside", "!= own - 1 and beside", "training/test_features.py"),
    Mutation("training/healable.py", "if reason is not None:", "if reason is None:", "commands/test_heal.py"),
    Mutation("training/healed_folder.py", ".to(dtype).contiguous()", ".float().contiguous()", "commands/test_heal.py"),
)

ROWS = (
    Mutation(
        "publish/artefact.py",
        "return bool(facts[WEIGHTS_SUM] == hash_tensors(source, variant=variant))",
        "return True",
        "commands/test_folders_as_rows.py",
    ),
    Mutation("experiment/rows.py", 'self.__dict__.pop("pipe", None)', "pass", "commands/test_folders_as_rows.py"),
    Mutation("experiment/rows.py", '"own": own, ', "", "commands/test_folders_as_rows.py"),
    Mutation(
        "publish/known_arguments.py",
        "return call_of_manifest(read_manifest(root))",
        "return {}",
        "commands/test_folders_as_rows.py",
    ),
    Mutation(
        "experiment/own_model_fit.py",
        "    return shapes[0] == shapes[1]",
        "    return True",
        "commands/test_folders_as_rows.py",
    ),
    Mutation(
        "publish/card_section.py",
        "marked + after, *lines[ends[0] + 1 :]]",
        "marked + after]",
        "commands/test_folders_as_rows.py",
    ),
)

SPECTRA = (
    Mutation(
        "spectra/bands.py", "kept = self.edges[: self.within(nyquist)]", "kept = self.edges", "spectra/test_power.py"
    ),
    Mutation(
        "spectra/prediction.py",
        "return (sample - noise * prediction) / (signal + noise)",
        "return sample - noise * prediction / 2",
        "spectra/test_prediction.py",
    ),
    Mutation("spectra/forward_noise.py", "STREAM + seed", "seed", "spectra/test_forward_noise.py"),
    Mutation(
        "spectra/latent_pictures.py",
        "torch.argsort(packed.flatten().long())",
        "packed.flatten().long()",
        "spectra/test_latent_pictures.py",
    ),
)

MUTATIONS = (
    *SPEC,
    *PLAN,
    *TRACING,
    *GRAPH,
    *CHECKPOINT,
    *ACTIVATIONS,
    *EVALUATE,
    *EXPORT,
    *HONESTY,
    *WINDOWS,
    *SWEEPS,
    *TRAINING,
    *ROWS,
    *SPECTRA,
)
