"""Processes for tests that kill them or fill them with output, forked from one that has imported what they need."""

import multiprocessing

LAUNCHER = multiprocessing.get_context("forkserver")
LAUNCHER.set_forkserver_preload(  # of all tests, as the first of them in a worker of pytest starts the one that forks
    [
        *(
            "tests.pipeline.test_steps",
            "tests.registry.remote_killing",
            "optkit.pipeline.run",
            "optkit.compression.quantizers",
        ),
        *("optkit.tasks.classification", "obstore.store", "tritonclient.grpc"),
    ]
)
