// SPDX-License-Identifier: Apache-2.0
/*
 * Makes devices in the guest do DMA that their drivers would not, on the library of the kernel's VFIO selftests.
 * The guest's init starts it; the devices must be bound to vfio-pci.
 *
 *   guest-dma edu BDF read|write IOVA HOW   one DMA of QEMU's edu, of 4 bytes at IOVA; says whether the data moved
 *   guest-dma storm BDF COUNT CPU           COUNT DMA reads of an igb from where nothing is mapped, while nothing else runs on
 *                                           processor CPU; then a copy that must work
 *
 * HOW is what lies at IOVA: "nothing", "readable", "writable"; "gone": writable, used once and unmapped; "detached" and
 * "unable": writable, but the device has no address space, or may not be bus master.
 */
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/sizes.h>
#include <linux/vfio.h>

#include <libvfio.h>

/* QEMU's docs/specs/edu.rst */
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_DESTINATION 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_START 1
#define EDU_DMA_TO_MEMORY 2
#define EDU_BUFFER 0x40000

/* QEMU reports one fault for each of its accesses, and these have up to 8 bytes. */
#define LENGTH 4
/* What the selftests' igb driver sends at least. */
#define FRAME 64
/* Reads that are started at once: their faults are fewer than the host keeps for one guest. */
#define BATCH 250
/* Where the page is that edu's buffer is filled from and looked at through. */
#define WINDOW_IOVA 0x1000000

static struct iommu *iommu;
static struct vfio_pci_device *device;

static void *pages(u64 size, int content)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	VFIO_ASSERT_NE(memory, MAP_FAILED);
	memset(memory, content, size);
	return memory;
}

/* iommu_map() of the library knows no read-only mappings. */
static void map(void *memory, u64 iova, bool writable)
{
	struct iommu_ioas_map args = {
		.size = sizeof(args),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | (writable ? IOMMU_IOAS_MAP_WRITEABLE : 0),
		.ioas_id = iommu->ioas_id,
		.user_va = (u64)memory,
		.length = getpagesize(),
		.iova = iova & ~(u64)(getpagesize() - 1),
	};

	ioctl_assert(iommu->iommufd, IOMMU_IOAS_MAP, &args);
}

static void unmap(u64 iova)
{
	struct iommu_ioas_unmap args = {
		.size = sizeof(args),
		.ioas_id = iommu->ioas_id,
		.length = getpagesize(),
		.iova = iova & ~(u64)(getpagesize() - 1),
	};

	ioctl_assert(iommu->iommufd, IOMMU_IOAS_UNMAP, &args);
}

static void attach(bool attached)
{
	struct vfio_device_attach_iommufd_pt to = { .argsz = sizeof(to), .pt_id = iommu->ioas_id };
	struct vfio_device_detach_iommufd_pt from = { .argsz = sizeof(from) };

	if (attached)
		ioctl_assert(device->fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &to);
	else
		ioctl_assert(device->fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &from);
}

static void edu_dma(u64 iova, bool to_memory)
{
	char *registers = device->bars[0].vaddr;
	volatile u64 *command = (volatile u64 *)(registers + EDU_DMA_COMMAND);

	*(volatile u64 *)(registers + EDU_DMA_SOURCE) = to_memory ? EDU_BUFFER : iova;
	*(volatile u64 *)(registers + EDU_DMA_DESTINATION) = to_memory ? iova : EDU_BUFFER;
	*(volatile u64 *)(registers + EDU_DMA_COUNT) = LENGTH;
	*command = EDU_DMA_START | (to_memory ? EDU_DMA_TO_MEMORY : 0);
	while (*command & EDU_DMA_START)
		usleep(1000);
}

static bool holds(const char *memory, char content)
{
	for (int i = 0; i < LENGTH; i++)
		if (memory[i] != content)
			return false;
	return true;
}

static void edu(const char *bdf, const char *direction, u64 iova, const char *how)
{
	bool write = !strcmp(direction, "write"), moved;
	char *window, *target, *begin;

	iommu = iommu_init(MODE_IOMMUFD);
	device = vfio_pci_device_init(bdf, iommu);
	window = pages(getpagesize(), 'e');
	target = pages(getpagesize(), 't');
	begin = target + iova % getpagesize();
	map(window, WINDOW_IOVA, true);
	if (strcmp(how, "nothing"))
		map(target, iova, strcmp(how, "readable"));

	vfio_pci_cmd_set(device, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	if (!strcmp(how, "gone")) {
		/* whatever may remember a translation remembers this one */
		edu_dma(iova, false);
		unmap(iova);
	}
	edu_dma(WINDOW_IOVA, false);
	if (!strcmp(how, "detached"))
		attach(false);
	if (!strcmp(how, "unable"))
		vfio_pci_cmd_clear(device, PCI_COMMAND_MASTER);

	edu_dma(iova, write);

	if (!strcmp(how, "unable"))
		vfio_pci_cmd_set(device, PCI_COMMAND_MASTER);
	if (!strcmp(how, "detached"))
		attach(true);
	if (write) {
		moved = holds(begin, 'e');
		VFIO_ASSERT_TRUE(moved || holds(begin, 't'), "memory changed to something else\n");
	} else {
		edu_dma(WINDOW_IOVA, true);
		moved = holds(window, 't');
	}
	printf("nestling-guest: dma %s at %#lx %s data %s\n", direction, iova, how, moved ? "moved" : "stayed");
	vfio_pci_device_cleanup(device);
	iommu_cleanup(iommu);
}

static struct dma_region region(struct iova_allocator *iovas, u64 size)
{
	struct dma_region region = { .vaddr = pages(size, 's'), .size = size };

	region.iova = iova_allocator_alloc(iovas, size);
	return region;
}

/* Threads of interrupts have a lower priority than this. */
static pid_t keep_busy(int cpu)
{
	struct sched_param highest = { .sched_priority = sched_get_priority_max(SCHED_FIFO) };
	pid_t child = fork();
	cpu_set_t only;

	VFIO_ASSERT_NE(child, -1);
	if (child)
		return child;
	CPU_ZERO(&only);
	CPU_SET(cpu, &only);
	VFIO_ASSERT_EQ(sched_setaffinity(0, sizeof(only), &only), 0);
	VFIO_ASSERT_EQ(sched_setscheduler(0, SCHED_FIFO, &highest), 0);
	for (;;)
		;
}

static void storm(const char *bdf, u64 count, int cpu)
{
	pid_t busy;
	struct iova_allocator *iovas;
	struct dma_region buffer;
	u64 nowhere, at_once;

	iommu = iommu_init(MODE_IOMMUFD);
	device = vfio_pci_device_init(bdf, iommu);
	VFIO_ASSERT_NOT_NULL(device->driver.ops, "the selftests have no driver for %s\n", bdf);
	iovas = iova_allocator_init(iommu);
	buffer = region(iovas, SZ_2M);
	iommu_map(iommu, &buffer);
	device->driver.region = region(iovas, SZ_2M);
	iommu_map(iommu, &device->driver.region);
	nowhere = iova_allocator_alloc(iovas, SZ_2M);
	vfio_pci_driver_init(device);

	busy = keep_busy(cpu);
	while (count) {
		at_once = min_t(u64, count, BATCH);
		vfio_pci_driver_memcpy_start(device, nowhere, buffer.iova, FRAME, at_once);
		/* devices may or may not report that they read nothing */
		vfio_pci_driver_memcpy_wait(device);
		usleep(20000);
		count -= at_once;
	}
	VFIO_ASSERT_EQ(kill(busy, SIGKILL), 0);
	VFIO_ASSERT_EQ(waitpid(busy, NULL, 0), busy);
	printf("nestling-guest: storm over\n");

	memset(buffer.vaddr, 's', SZ_1M);
	memset(buffer.vaddr + SZ_1M, 'd', SZ_1M);
	VFIO_ASSERT_EQ(vfio_pci_driver_memcpy(device, buffer.iova, buffer.iova + SZ_1M, 4096), 0);
	VFIO_ASSERT_EQ(memcmp(buffer.vaddr, buffer.vaddr + SZ_1M, 4096), 0);
	printf("nestling-guest: storm device copies again\n");
	vfio_pci_driver_remove(device);
	vfio_pci_device_cleanup(device);
	iommu_cleanup(iommu);
}

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "edu"))
		edu(argv[2], argv[3], strtoull(argv[4], NULL, 0), argv[5]);
	else if (argc == 5 && !strcmp(argv[1], "storm"))
		storm(argv[2], strtoull(argv[3], NULL, 0), atoi(argv[4]));
	else
		return 2;
	return 0;
}
