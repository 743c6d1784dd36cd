// Package sim runs the state machines of package fleet against logs that live in memory, under a scheduler that
// takes every choice from a seed: which record lands next, who reads how far, who pauses, crashes, loses the
// partition, and what the devices do. It has no code outside its tests.
//
// SLUICE_SEED=n repeats one schedule and prints its steps; SLUICE_SCHEDULES=n runs that many.
package sim
