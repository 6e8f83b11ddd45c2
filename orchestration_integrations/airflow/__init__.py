"""The Airflow provider: hook, operators, sensors, triggers. Import from the modules; nothing heavy is loaded here."""
