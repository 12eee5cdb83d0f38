/* SPDX-License-Identifier: Apache-2.0 */
/* The loopback interface of a pod. Must not live here: its other interfaces, which are the plugins'
 * before. */
#ifndef AMBIT_CNI_LOOPBACK_H
#define AMBIT_CNI_LOOPBACK_H

/* Brings up `lo` in a network namespace: the agent's listeners there have addresses of it. Runtimes
 * bring it up too, but some attach a pod to its networks at the same time, and not in an order.
 * What fails is left to the agent to report. This process stays in the namespace. */
void loopback_up(const char *netns);

#endif
