{{- /* An image by its digest, or else by its tag. */}}
{{- define "configstore.image" -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end }}
