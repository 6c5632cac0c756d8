#pragma once

#include "mcp-exec/cli.h"

#define JOB_ARGUMENTS_MAX ((size_t)1 << 20) /* bytes: limits.message, as it is by default */

/* Calls a tool in whichever way is best: as a job with its progress on a terminal, or in one message. *ret: the result,
 * owned by the caller. Negative, with error set where the service said so. */
int job_call_tool(Cli *cli, const char *server, const char *tool, const char *arguments, sd_bus_error *error,
                  char **ret);

/* Waits until the job is done, and shows its progress. started: usec, CLOCK_MONOTONIC, from which --timeout counts.
 * -ETIMEDOUT; -ECONNRESET where the service has gone. */
int job_wait(Cli *cli, const char *path, uint64_t started);

/* Its result, likewise. */
int job_result(Cli *cli, const char *path, sd_bus_error *error, char **ret);

/* Cancels it, or has it forgotten; the answer isn't waited for. */
int job_forget(Cli *cli, const char *path);
