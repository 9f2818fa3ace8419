"""The examples for clusters: accepted by the schemas that can be had, and naming files and options that exist."""

import os
import re
import subprocess

import kubernetes_validate
import pytest
import yaml

CLUSTER = "docs/cluster"


def configs_named(text):
    return re.findall(r"configs/\w+\.json", text)


@pytest.mark.parametrize("name", ["train.sbatch", "train.pytorchjob.yaml"])
def test_the_configs_named_are_there_and_train_on_several_gpus(bundle_root, name):
    named = configs_named((bundle_root / CLUSTER / name).read_text())
    assert named == ["configs/train.json", "configs/multi_gpu_train.json"]
    assert all((bundle_root / path).is_file() for path in named)


def test_the_script_for_slurm_parses_and_its_directives_come_before_any_command(bundle_root):
    path = bundle_root / CLUSTER / "train.sbatch"
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True).stderr == b""
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(directives) < first_command
    options = dict(lines[i].removeprefix("#SBATCH --").partition("=")[::2] for i in directives)
    assert {"nodes", "ntasks-per-node", "gpus-per-node", "time"} <= options.keys()
    assert options["ntasks-per-node"] == "1"  # torchrun starts the processes of a node


def test_the_script_for_slurm_hands_the_cores_of_a_task_on_to_srun(bundle_root, tmp_path):
    for name, content in (("scontrol", "seq -f node%.0f 30000"), ("srun", 'echo "$SRUN_CPUS_PER_TASK" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{content}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"JOB_NODELIST": "node[1-2]", "NNODES": "2", "GPUS_ON_NODE": "4", "JOB_ID": "7", "CPUS_PER_TASK": "32"}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | {f"SLURM_{key}": value for key, value in slurm.items()}
    line = ["bash", str(bundle_root / CLUSTER / "train.sbatch"), "DATASET", "OUTPUT"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("32 torchrun --nnodes=2 --nproc_per_node=4 ")
    assert " --rdzv_endpoint=node1:29500 " in done.stdout
    assert done.stdout.endswith("--dataset_dir DATASET --output_dir OUTPUT\n")


def test_the_job_for_kubernetes_fits_the_operator_and_its_pods_the_schema_of_kubernetes(bundle_root):
    job = yaml.safe_load((bundle_root / CLUSTER / "train.pytorchjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"}
    for replica in replicas.values():
        assert set(replica) == {"replicas", "restartPolicy", "template"}
        assert [container["name"] for container in replica["template"]["spec"]["containers"]] == ["pytorch"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "replica"}, "spec": replica["template"]["spec"]}
        kubernetes_validate.validate(pod, "1.30", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):  # the schema does look
        kubernetes_validate.validate(pod | {"spec": {"containers": "none"}}, "1.30", strict=True)
