SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  tryItOutEnabled: true,
  // It would send the description to a service elsewhere.
  validatorUrl: null,
});
