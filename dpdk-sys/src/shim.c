#include "shim.h"

#include <rte_hash_crc.h>

int baton_errno(void)
{
	return rte_errno;
}

unsigned int baton_lcore_id(void)
{
	return rte_lcore_id();
}

uint16_t baton_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t baton_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

const char *baton_mempool_ops_name(const struct rte_mempool *pool)
{
	return rte_mempool_get_ops(pool->ops_index)->name;
}

struct rte_mbuf *baton_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int baton_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **packets, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, packets, count);
}

void baton_mbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

void baton_mbuf_make_free(struct rte_mbuf *packet)
{
	rte_mbuf_refcnt_set(packet, 1);
	packet->next = NULL;
	packet->nb_segs = 1;
	packet->ol_flags = 0;
}

void *baton_mbuf_data(struct rte_mbuf *packet)
{
	return rte_pktmbuf_mtod(packet, void *);
}

uint16_t baton_mbuf_tailroom(const struct rte_mbuf *packet)
{
	return rte_pktmbuf_tailroom(packet);
}

char *baton_mbuf_append(struct rte_mbuf *packet, uint16_t length)
{
	return rte_pktmbuf_append(packet, length);
}

int baton_mbuf_trim(struct rte_mbuf *packet, uint16_t length)
{
	return rte_pktmbuf_trim(packet, length);
}

char *baton_mbuf_prepend(struct rte_mbuf *packet, uint16_t length)
{
	return rte_pktmbuf_prepend(packet, length);
}

char *baton_mbuf_adjust(struct rte_mbuf *packet, uint16_t length)
{
	return rte_pktmbuf_adj(packet, length);
}

unsigned int baton_ring_enqueue_burst(struct rte_ring *ring, struct rte_mbuf *const *packets, unsigned int count)
{
	return rte_ring_sp_enqueue_burst(ring, (void *const *)packets, count, NULL);
}

unsigned int baton_ring_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **packets, unsigned int count)
{
	return rte_ring_sc_dequeue_burst(ring, (void **)packets, count, NULL);
}

unsigned int baton_ring_count(const struct rte_ring *ring)
{
	return rte_ring_count(ring);
}

unsigned int baton_ring_free_count(const struct rte_ring *ring)
{
	return rte_ring_free_count(ring);
}

uint32_t baton_hash_crc(const void *key, uint32_t length, uint32_t start)
{
	return rte_hash_crc(key, length, start);
}
