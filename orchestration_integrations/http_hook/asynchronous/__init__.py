"""The hook for asyncio. The blocking one is generated from it."""
