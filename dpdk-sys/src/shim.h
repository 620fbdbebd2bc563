/* Real functions for the static inline functions of libdpdk that Baton uses. */
#ifndef BATON_DPDK_SHIM_H
#define BATON_DPDK_SHIM_H

#include <stdint.h>

#include <rte_eal.h>
#include <rte_eal_memconfig.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_hash.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_service_component.h>
#include <rte_version.h>

/* The calling thread's rte_errno. */
int baton_errno(void);

/* The calling thread's lcore id, or UINT_MAX. */
unsigned int baton_lcore_id(void);

uint16_t baton_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
uint16_t baton_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);

/* The name of the operations that keep the pool's free objects. */
const char *baton_mempool_ops_name(const struct rte_mempool *pool);

struct rte_mbuf *baton_mbuf_alloc(struct rte_mempool *pool);
int baton_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count);
void baton_mbuf_free(struct rte_mbuf *packet);
/* Makes a buffer what it is in a pool, whatever it was. Nobody holds it. */
void baton_mbuf_make_free(struct rte_mbuf *packet);
void *baton_mbuf_data(struct rte_mbuf *packet);
uint16_t baton_mbuf_tailroom(const struct rte_mbuf *packet);
char *baton_mbuf_append(struct rte_mbuf *packet, uint16_t length);
int baton_mbuf_trim(struct rte_mbuf *packet, uint16_t length);
char *baton_mbuf_prepend(struct rte_mbuf *packet, uint16_t length);
char *baton_mbuf_adjust(struct rte_mbuf *packet, uint16_t length);

/* All of them are for rings with one producer and one consumer. */
unsigned int baton_ring_enqueue_burst(struct rte_ring *ring, struct rte_mbuf *const *packets, unsigned int count);
unsigned int baton_ring_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count);
unsigned int baton_ring_count(const struct rte_ring *ring);
unsigned int baton_ring_free_count(const struct rte_ring *ring);

/* rte_hash_crc as a hash function of an rte_hash. */
uint32_t baton_hash_crc(const void *key, uint32_t length, uint32_t start);

#endif
