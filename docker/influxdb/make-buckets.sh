#!/bin/sh
# Run once by the image, after its set-up, which makes a single bucket.
set -eu
influx bucket create --name system_metrics --org "$DOCKER_INFLUXDB_INIT_ORG"
