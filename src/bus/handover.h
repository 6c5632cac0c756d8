#pragma once

#include "broker/job.h"
#include "bus/service.h"

/* A job that comes while the service leaves for being idle is the next service's, for there its caller will look for
 * it: it is left in a file, the next service is started, and takes it before it takes the name. */

/* The path of the job, owned by the caller, or negative with failure set: what is wrong with the job, or what its user
 * has too much of. -EOPNOTSUPP where it can't be left behind, which sets none. */
int handover_job(Service *service, const JobSpec *spec, char **ret, Failure *failure);

/* Takes what the last service left, if this one isn't leaving itself. Objects are registered by then. */
void handover_take(Service *service);

/* From now on as well: where no systemd starts services, the last one may still read what was sent to it before. */
void handover_watch(Service *service);

/* The name is free: has the bus start the next service, if something was left for it. */
void handover_start_next(Service *service);
