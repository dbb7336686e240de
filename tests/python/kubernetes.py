"""Checks launch/kubernetes.yaml: its pods against Kubernetes' own schema, strictly, and the rest against the fields of
an MPIJob v2beta1 (https://github.com/kubeflow/mpi-operator, pkg/apis/kubeflow/v2beta1/types.go). Prints the pods of each
role, as JSON.

    kubernetes.py FILE
"""

import json
import sys

import jsonschema
import kubernetes_validate
import yaml

VERSION = "1.31"

WHOLE = {"type": "integer", "minimum": 0}


def fields(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


REPLICAS = fields(
    required=["template"],
    replicas=WHOLE,
    restartPolicy={"enum": ["Never", "OnFailure"]},
    template={"type": "object"},
)
MPI_JOB = fields(
    required=["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "kubeflow.org/v2beta1"},
    kind={"const": "MPIJob"},
    metadata={"type": "object", "required": ["name"]},
    spec=fields(
        required=["mpiReplicaSpecs"],
        slotsPerWorker={"type": "integer", "minimum": 1},
        runLauncherAsWorker={"type": "boolean"},
        runPolicy=fields(
            cleanPodPolicy={"enum": ["None", "Running", "All"]},
            ttlSecondsAfterFinished=WHOLE,
            activeDeadlineSeconds=WHOLE,
            backoffLimit=WHOLE,
            schedulingPolicy={"type": "object"},
            suspend={"type": "boolean"},
            managedBy={"type": "string"},
        ),
        mpiReplicaSpecs=fields(required=["Launcher", "Worker"], Launcher=REPLICAS, Worker=REPLICAS),
        sshAuthMountPath={"type": "string"},
        launcherCreationPolicy={"enum": ["AtStartup", "WaitForWorkersReady"]},
        mpiImplementation={"enum": ["OpenMPI", "Intel", "MPICH"]},
    ),
)


def main():
    [path] = sys.argv[1:]
    with open(path) as file:
        job = yaml.safe_load(file)
    jsonschema.validate(job, MPI_JOB)
    spec = job["spec"]
    for name, replicas in spec["mpiReplicaSpecs"].items():
        # A template stands in no object alone but this one.
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name.lower()}}
        kubernetes_validate.validate(template | {"template": replicas["template"]}, VERSION, strict=True)
        pod = replicas["template"]["spec"]
        claimed = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            if mounted != claimed:
                sys.exit(f"{name} mounts {sorted(mounted)} of {sorted(claimed)}")
    [worker] = spec["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    if worker["resources"]["limits"]["nvidia.com/gpu"] != spec["slotsPerWorker"]:
        sys.exit("a slot is a GPU")
    print(json.dumps({name: replicas["replicas"] for name, replicas in spec["mpiReplicaSpecs"].items()}))


main()
