"""The addresses that Prefect's UI shows beside the blocks.

Prefect takes http and https only: it refuses ``data:`` addresses when a block is registered, and again when its type is
read. So the logo is a file of Formance's public documentation, named by its commit: what such an address gives never
changes.
"""

LOGO_URL = (
    "https://raw.githubusercontent.com/formancehq/docs/edba71ee2c04fa3fbda2017a5e770c93650018da/"
    "static/img/favicons/android-chrome-512x512.png"
)
"""A square PNG of 512 pixels, as Prefect's own test of blocks demands (46 to 999)."""
DOCUMENTATION_URL = "https://docs.formance.com/modules/flows/introduction"
